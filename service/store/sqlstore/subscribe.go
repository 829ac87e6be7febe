package sqlstore

import (
	"sync"

	"github.com/lifeboat-dr/lifeboat/service/store"
)

// subscribers tells who wants to know of saves. The zero value is ready.
type subscribers struct {
	mu   sync.Mutex // guards list
	list map[*subscription]bool
}

type subscription struct {
	kinds map[store.Kind]bool
	ch    chan struct{} // one place: values coalesce
}

func (s *subscribers) add(kinds []store.Kind) (<-chan struct{}, func()) {
	sub := &subscription{kinds: map[store.Kind]bool{}, ch: make(chan struct{}, 1)}
	for _, k := range kinds {
		sub.kinds[k] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list == nil {
		s.list = map[*subscription]bool{}
	}
	s.list[sub] = true
	return sub.ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.list, sub)
	}
}

func (s *subscribers) notify(saved map[store.Kind]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.list {
		for k := range saved {
			if sub.kinds[k] {
				select {
				case sub.ch <- struct{}{}:
				default:
				}
				break
			}
		}
	}
}

// wakeAll tells every subscriber that something may have been saved.
func (s *subscribers) wakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.list {
		select {
		case sub.ch <- struct{}{}:
		default:
		}
	}
}
