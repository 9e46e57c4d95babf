package seeder

import "dunlin/discovery/internal/lines"

// What the tests, which are outside the package, reach inside for.

// WriteLines writes a state file.
var WriteLines = lines.Write

// Save writes the state.
func (s *Seeder) Save() error { return s.save() }
