package ship

import "time"

// OnWindow has f called at the end of each last pass, while the machine stands still.
func (p *Protector) OnWindow(f func()) { p.inWindow = f }

// Hurry has a refused capture tried again at once.
func (p *Protector) Hurry() { p.patience = 100 * time.Millisecond }

// Print has prints made, whether this processor is quick without them or not.
func (p *Protector) Print() { p.printed = true }
