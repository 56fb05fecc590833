package config

import (
	"bytes"
	"fmt"
	"io"

	"github.com/hashicorp/hcl/v2/hclwrite"

	"outrigger/sidecar"
)

// Effective writes the whole configuration as HCL, with a comment at each value
// that is the default. Loading the text gives the same configuration; only
// secrets are written as "[redacted]", which Load refuses.
func Effective(w io.Writer, cfg sidecar.Config) error {
	var b bytes.Buffer
	def := sidecar.DefaultConfig()
	writeBody(&b, baseTable(&cfg), baseTable(&def))
	for _, s := range cfg.Services {
		fmt.Fprintf(&b, "\nservice %s {\n", quote(s.Name))
		writeBody(&b, serviceTable(&s), serviceTable(newService(s.Name)))
		b.WriteString("}\n")
	}
	_, err := w.Write(hclwrite.Format(b.Bytes()))
	return err
}

// EffectiveAgent is Effective for the file of an agent.
func EffectiveAgent(w io.Writer, cfg Agent) error {
	var b bytes.Buffer
	writeBody(&b, agentTable(&cfg), agentTable(defaultAgent()))
	_, err := w.Write(hclwrite.Format(b.Bytes()))
	return err
}

// writeBody writes the settings and blocks of a table; def is the same table
// over the defaults.
func writeBody(b *bytes.Buffer, t, def *block) {
	writeSettings(b, t.settings, def.settings)
	if t.label != nil {
		// The label is quoted text, as in variants' keys.
		for label, settings := range t.variants {
			if quote(label) == t.label.text() {
				writeSettings(b, settings, def.variants[label])
			}
		}
	}
	for i, c := range t.blocks {
		if c.all != nil {
			for _, n := range c.all() {
				fmt.Fprintf(b, "\n%s %s {\n", c.name, quote(n.label))
				writeBody(b, n.table, n.def)
				b.WriteString("}\n")
			}
			continue
		}
		label := ""
		if c.label != nil {
			if c.label.zero() {
				continue // a block that is not there
			}
			label = " " + c.label.text()
		}
		fmt.Fprintf(b, "\n%s%s {\n", c.name, label)
		writeBody(b, c, def.blocks[i])
		b.WriteString("}\n")
	}
}

func writeSettings(b *bytes.Buffer, settings, def []setting) {
	for i, s := range settings {
		text := s.dest.text()
		comment := ""
		if !s.required && text == def[i].dest.text() {
			comment = " # default"
			if s.empty != "" && s.dest.zero() {
				comment += ": " + s.empty
			}
		} else if s.empty != "" && s.dest.zero() {
			comment = " # " + s.empty
		}
		fmt.Fprintf(b, "%s = %s%s\n", s.name, text, comment)
	}
}
