// Package fleet owns what agents and replicators are to the control plane: their enrolment and certificates, what they observe,
// what is desired of them, the grants they ship under, and the tasks they lease. They pull; it never dials them. It decides
// nothing about protected items: what it tells an agent is a projection of what service/control saved.
package fleet
