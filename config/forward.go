package config

import (
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"outrigger/sidecar/h1"
)

// forwardTable is what a forwarded head tells of the client, and what is changed
// in it.
func forwardTable(c *h1.ForwardConfig) *block {
	return &block{
		name: "forward",
		settings: []setting{
			{name: "x_forwarded", dest: choice(&c.XForwarded, h1.ForwardModes())},
			{name: "forwarded", dest: choice(&c.Forwarded, h1.ForwardModes())},
			{name: "fields", dest: newToggles([]string{"for", "proto", "host", "by"},
				&c.Fields.For, &c.Fields.Proto, &c.Fields.Host, &c.Fields.By)},
			{name: "trust", dest: texts(&c.Trust), empty: "nobody"},
			{name: "via", dest: flag(&c.Via)},
			{name: "traceparent", dest: choice(&c.Traceparent, h1.TraceModes())},
			{name: "sampled", dest: ratio(&c.Sampled)},
			{name: "host", dest: text(&c.Host), empty: "the client's"},
		},
		blocks: []*block{{name: "headers", blocks: []*block{
			opsTable("request", &c.Headers.Request, false),
			opsTable("response", &c.Headers.Response, true),
		}}},
	}
}

func opsTable(name string, o *h1.HeaderOps, response bool) *block {
	return &block{name: name, settings: []setting{
		{name: "remove", dest: texts(&o.Remove)},
		{name: "set", dest: headers(&o.Set, response)},
		{name: "add", dest: headers(&o.Add, response)},
	}}
}

// headers is a map of names to values, in the order in which it is written.
func headers(p *[]h1.HeaderField, response bool) dest {
	def := *p
	return &field[[]h1.HeaderField]{
		p: p, def: &def,
		read:  func(v value) ([]h1.HeaderField, *fault) { return readHeaders(v, response) },
		print: printHeaders,
		none:  func(list []h1.HeaderField) bool { return len(list) == 0 },
	}
}

// readHeaders returns nil for an empty map, so that it is the same as none. It
// checks each header for itself, to name it where it is.
func readHeaders(v value, response bool) (list []h1.HeaderField, _ *fault) {
	entries, ok := v.v.([]entry)
	if !ok {
		return nil, &fault{message: "must be a map of headers", hint: `Write { X-Name = "VALUE", ... }.`}
	}
	for i := range entries {
		e := &entries[i]
		text, f := e.text()
		if f != nil {
			return nil, f
		}
		h := h1.HeaderField{Name: e.name.v.(string), Value: text}
		if err := h.Validate(response); err != nil {
			return nil, &fault{message: "cannot have this header: " + err.Error(), item: &e.name}
		}
		for _, before := range list {
			if strings.EqualFold(before.Name, h.Name) {
				return nil, &fault{message: "has this header twice", item: &e.name}
			}
		}
		list = append(list, h)
	}
	return list, nil
}

func printHeaders(list []h1.HeaderField) string {
	if len(list) == 0 {
		return "{}"
	}
	texts := make([]string, len(list))
	for i, h := range list {
		v := h.Value
		if secretHeader(h.Name) {
			v = hiddenText
		}
		texts[i] = quote(h.Name) + " = " + quote(v)
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}

// secretHeader reports whether a header's value is likely to be a secret.
func secretHeader(name string) bool {
	low := strings.ToLower(name)
	for _, part := range []string{"auth", "cookie", "api-key", "apikey", "api_key"} {
		if strings.Contains(low, part) {
			return true
		}
	}
	return soundsSecret(name)
}

// object reads a map. Its names are written out, with or without quotes.
func (l *loader) object(s *source, v value, e *hclsyntax.ObjectConsExpr) (value, bool) {
	entries, good := make([]entry, 0, len(e.Items)), true
	for _, item := range e.Items {
		name, ok := l.key(s, item.KeyExpr)
		good = good && ok
		x, ok := l.eval(s, item.ValueExpr)
		good = good && ok
		v.outside = v.outside || x.outside
		entries = append(entries, entry{name, x})
	}
	v.v = entries
	return v, good
}

func (l *loader) key(s *source, e hclsyntax.Expression) (value, bool) {
	v := value{at: e.Range()}
	if k, ok := e.(*hclsyntax.ObjectConsKeyExpr); ok && !k.ForceNonLiteral {
		switch w := k.Wrapped.(type) {
		case *hclsyntax.ScopeTraversalExpr:
			if len(w.Traversal) == 1 {
				v.v = w.Traversal.RootName()
				return v, true
			}
		case *hclsyntax.TemplateExpr:
			if w.IsStringLiteral() {
				v.v = w.Parts[0].(*hclsyntax.LiteralValueExpr).Val.AsString()
				return v, true
			}
		}
	}
	if !s.broken {
		l.report(v.at, "names in a map are written out", `Put the name in quotes: { "X.Name" = "VALUE" }.`)
	}
	return v, false
}
