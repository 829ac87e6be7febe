package ship

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// memo is what a protection remembers over a restart of the agent. Losing it costs a capture or a comparison, nothing else.
type memo struct {
	CaptureID  string    `json:"captureId,omitempty"` // answered
	ResyncID   string    `json:"resyncId,omitempty"`  // answered
	Generation int64     `json:"generation,omitempty"`
	Sequence   int64     `json:"sequence,omitempty"`
	PointTime  time.Time `json:"pointTime,omitzero"`
	AppTime    time.Time `json:"appTime,omitzero"`
}

func readMemo(path string) (m memo, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return memo{}, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return memo{}, err
	}
	return m, nil
}

func (m memo) write(path string) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("remember the protection: %w", err)
	}
	return os.Rename(tmp, path)
}
