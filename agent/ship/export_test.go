package ship

// OnWindow has f called at the end of each last pass, while the machine stands still.
func (p *Protector) OnWindow(f func()) { p.inWindow = f }

// DeadmanPID returns the dead-man's process id.
func (p *Protector) DeadmanPID() int { return p.guard.PID() }
