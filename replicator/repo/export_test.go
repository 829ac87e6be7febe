package repo

// Shrink makes a writer's limits so small that a test meets them.
func (w *Writer) Shrink() { w.limits = limits{pack: 1<<20 + 64<<10, blocks: 300, runs: 20, packs: 2} }
