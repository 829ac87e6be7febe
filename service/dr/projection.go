package dr

// Projection is what clients see of a State. The strings are those of the wire.
type Projection struct {
	Provider                     ProviderType
	Direction                    Direction
	ProtectionState              string
	ProtectionStateDescription   string
	ActiveLocation               string
	TestFailoverState            string
	TestFailoverStateDescription string
	AllowedOperations            []string
}
