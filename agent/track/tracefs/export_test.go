package tracefs

// Pause stops the reading of all trace buffers until the returned function is called.
func (m *Machine) Pause() (resume func()) {
	for _, c := range m.cpus {
		c.mu.Lock()
	}
	return func() {
		for _, c := range m.cpus {
			c.mu.Unlock()
		}
	}
}

// Shrink makes the trace buffers so small that some thousand events do not fit.
func (m *Machine) Shrink() error { return m.set("64", "buffer_size_kb") }
