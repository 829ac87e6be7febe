package repo

import (
	"context"
	"runtime"
	"sync"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
)

// pipeline turns plain frames into pack files: workers compress and encrypt, one appender writes in the order of submission,
// uploaders sync sealed packs and put them into the bucket. At most workers+2 frames and uploadQueue sealed packs wait; then submit blocks.
//
//	submit -> work -> workers -> (done)
//	submit -> order ---------------------> appender -> uploads -> uploaders
type pipeline struct {
	codec   chunk.Codec
	work    chan *frame
	order   chan step
	uploads chan *pack
	tokens  chan struct{} // one a frame on its way
	seal    func(*pack) error
	upload  func(*pack)

	workers, appender, uploaders sync.WaitGroup

	mu  sync.Mutex // guards err
	err error      // the first failure of the appender; nothing is appended after it
}

const (
	uploaders   = 2
	uploadQueue = 4
)

// step is what the appender does next: append a frame, seal a pack, or tell that it came this far.
type step struct {
	frame *frame
	seal  *pack
	pass  chan struct{}
}

// frame is a frame on its way into a pack. Buffers are pooled: an idle writer holds none.
type frame struct {
	pack   *pack
	index  uint32
	number int32    // in held.frames
	at     *frameAt // filled when the frame is in its file; read behind a barrier
	runs   []chunk.Run
	plain  []byte // own is its memory, or a caller's that is given back with done
	own    []byte // cap MaxPlain
	done   func() // nil: plain is own
	out    []byte
	blocks int
	sealed chan struct{} // cap 1: a token when out is ready
}

var framePool = sync.Pool{New: func() any {
	return &frame{own: make([]byte, 0, chunk.MaxPlain), out: make([]byte, 0, chunk.SealBound(chunk.MaxPlain, 64))}
}}

func newPipeline(workers int, codec chunk.Codec, seal func(*pack) error, upload func(*pack)) *pipeline {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	p := &pipeline{codec: codec, work: make(chan *frame, workers+2), order: make(chan step, workers+4), uploads: make(chan *pack, uploadQueue),
		tokens: make(chan struct{}, workers+2), seal: seal, upload: upload}
	for range workers {
		p.workers.Go(p.compress)
	}
	p.appender.Go(p.append)
	for range uploaders {
		p.uploaders.Go(func() {
			for k := range p.uploads {
				p.upload(k)
			}
		})
	}
	return p
}

func (p *pipeline) compress() {
	for f := range p.work {
		f.out = f.pack.cipher.Seal(f.out[:0], p.codec, f.index, f.runs, f.plain)
		f.giveBack()
		close(f.sealed)
	}
}

func (p *pipeline) append() {
	for s := range p.order {
		switch {
		case s.frame != nil:
			f := s.frame
			<-f.sealed
			if p.failed() == nil {
				off, err := f.pack.append(f.out)
				p.fail(err)
				*f.at = frameAt{pack: f.pack.id, offset: off, length: uint32(len(f.out)), index: uint16(f.index)}
			}
			f.pack.inFlight.Add(-int64(f.blocks) * block.Size)
			p.release(f)
		case s.seal != nil:
			if p.failed() == nil {
				p.fail(p.seal(s.seal))
			}
			if err := p.failed(); err != nil {
				s.seal.err = err
				close(s.seal.uploaded)
				continue
			}
			p.uploads <- s.seal
		default:
			close(s.pass)
		}
	}
}

func (p *pipeline) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// failed returns the first failure; from then on the writer is of no use.
func (p *pipeline) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// take returns an empty frame, as soon as one may be on its way.
func (p *pipeline) take(ctx context.Context) (*frame, error) {
	select {
	case p.tokens <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f := framePool.Get().(*frame)
	f.runs, f.plain, f.blocks, f.sealed = f.runs[:0], f.own, 0, make(chan struct{})
	return f, nil
}

func (p *pipeline) release(f *frame) {
	f.pack, f.at = nil, nil
	framePool.Put(f)
	<-p.tokens
}

// submit sends a frame on its way. It does not block for long: a token is room in both channels.
func (p *pipeline) submit(f *frame) {
	f.pack.inFlight.Add(int64(f.blocks) * block.Size)
	p.work <- f
	p.order <- step{frame: f}
}

// sealPack ends a pack behind the frames submitted so far.
func (p *pipeline) sealPack(k *pack) { p.order <- step{seal: k} }

// mark returns a channel that is closed when all frames submitted so far are in their files and placed, or the pipeline failed.
func (p *pipeline) mark(ctx context.Context) (<-chan struct{}, error) {
	pass := make(chan struct{})
	select {
	case p.order <- step{pass: pass}:
		return pass, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// await waits for a mark.
func (p *pipeline) await(ctx context.Context, pass <-chan struct{}) error {
	select {
	case <-pass:
		return p.failed()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// barrier waits until all frames submitted so far are in their files and placed.
func (p *pipeline) barrier(ctx context.Context) error {
	pass, err := p.mark(ctx)
	if err != nil {
		return err
	}
	return p.await(ctx, pass)
}

// close lets everything that is on its way end and waits for the goroutines. Nothing may be submitted any more.
func (p *pipeline) close() {
	close(p.work)
	p.workers.Wait()
	close(p.order)
	p.appender.Wait()
	close(p.uploads)
	p.uploaders.Wait()
}

// lend makes plain, which is n whole blocks, the content of an empty frame.
func (f *frame) lend(disk int, first, n int64, plain []byte, done func()) {
	f.plain, f.done, f.blocks = plain, done, int(n)
	f.runs = append(f.runs, chunk.Run{Disk: disk, First: first, Blocks: n})
}

// giveBack ends the use of lent memory.
func (f *frame) giveBack() {
	if f.done != nil {
		f.done()
	}
	f.plain, f.done = nil, nil
}

// addHole appends a hole run, joined to the one before where that is possible.
func (f *frame) addHole(disk int, first, n int64) {
	if k := len(f.runs); k > 0 {
		if l := &f.runs[k-1]; l.Hole && l.Disk == disk && l.First+l.Blocks == first {
			l.Blocks += n
			return
		}
	}
	f.runs = append(f.runs, chunk.Run{Disk: disk, Hole: true, First: first, Blocks: n})
}

// addData appends n blocks; a short last one is padded with zeros.
func (f *frame) addData(disk int, first, n int64, data []byte) {
	f.plain = append(f.plain, data...)
	if pad := int(n)*block.Size - len(data); pad > 0 {
		f.plain = append(f.plain, make([]byte, pad)...)
	}
	f.blocks += int(n)
	if k := len(f.runs); k > 0 {
		if l := &f.runs[k-1]; !l.Hole && l.Disk == disk && l.First+l.Blocks == first {
			l.Blocks += n
			return
		}
	}
	f.runs = append(f.runs, chunk.Run{Disk: disk, First: first, Blocks: n})
}

// full tells whether not one more block or run fits. Nothing fits behind lent memory.
func (f *frame) full() bool {
	return f.done != nil || f.blocks == chunk.MaxBlocks || len(f.runs) == chunk.MaxRuns
}
