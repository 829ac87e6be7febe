// Package dr owns the domain: vaults, fabrics, protected items, policies, recovery points, and the table of legs that says
// which operation is allowed in which state and what follows. It is pure: no I/O, no clock, the standard library only.
package dr
