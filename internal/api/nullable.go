package api

import "github.com/danielgtaylor/huma/v2"

// Objects that may be null: huma takes a pointer to a struct for the struct.

// TransformSchema implements huma.SchemaTransformer.
func (Sync) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return nullable(s, "last_stall")
}

// TransformSchema implements huma.SchemaTransformer.
func (TxInput) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return nullable(s, "prevout")
}

// nullable lets a property that is an object be null too.
func nullable(s *huma.Schema, property string) *huma.Schema {
	if p := s.Properties[property]; p != nil && p.Ref != "" {
		s.Properties[property] = &huma.Schema{
			AnyOf: []*huma.Schema{{Ref: p.Ref}, {Type: "null"}}, Description: p.Description,
		}
	}
	return s
}
