package config

import (
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// A block is one kind of block of the language, tied to the variables that it
// sets. The tables made of blocks (base.go, service.go, agent.go) are the one
// place where a setting has its name: reading, suggestions and the effective
// configuration all come from them. Ranges and defaults are the Configs' own.
type block struct {
	name  string
	label dest // set by the one label; nil: there is none
	// otherwise is the label of a block that is written without one; "": it must
	// have one.
	otherwise string
	settings  []setting
	blocks    []*block
	// variants are the further settings that the label decides on.
	variants map[string][]setting
	// each makes the table of one block of a kind that may repeat, with the
	// check of what it fills. sample is such a table, for suggestions.
	each   func(label string) (child *block, validate func() error)
	sample *block
	// add makes the table of one more block of a kind that may stand several times in
	// a block of a service, under different names. all are those that are there.
	add func(label string) *block
	all func() []named
	// foreign are blocks that belong elsewhere: name and explanation.
	foreign map[string]string
}

// named is one of the blocks that block.add made, with the same table over the
// defaults.
type named struct {
	label      string
	table, def *block
}

// setting is one name = value of a block.
type setting struct {
	name string
	dest dest
	// required: there is no default, the variable holds an example.
	required bool
	// empty says what the zero value means, for the effective configuration.
	empty string
	// address marks a listener's address: no two may be the same.
	address bool
}

func (b *block) setting(name string) *setting {
	for i := range b.settings {
		if b.settings[i].name == name {
			return &b.settings[i]
		}
	}
	return nil
}

// variant returns a setting that depends on the label, and the label that has it:
// this one, if it does.
func (b *block) variant(own, name string) (label string, s *setting) {
	for _, label := range append([]string{own}, b.variantNames()...) {
		v := block{settings: b.variants[label]}
		if s := v.setting(name); s != nil {
			return label, s
		}
	}
	return "", nil
}

// variantNames returns the labels that have settings of their own, in order.
func (b *block) variantNames() []string {
	var names []string
	for label := range b.variants {
		names = append(names, label)
	}
	slices.Sort(names)
	return names
}

func (b *block) block(name string) *block {
	for _, c := range b.blocks {
		if c.name == name {
			return c
		}
	}
	return nil
}

// names returns what may stand in the block: settings, then blocks.
func (b *block) names() []string {
	var names []string
	for _, s := range b.settings {
		names = append(names, s.name)
	}
	for _, label := range b.variantNames() {
		for _, s := range b.variants[label] {
			names = append(names, s.name)
		}
	}
	for _, c := range b.blocks {
		names = append(names, c.name)
	}
	return names
}

// find returns the paths, at most two, of blocks in b that have name.
func (b *block) find(name string) []string {
	var paths []string
	var walk func(b *block, path string)
	walk = func(b *block, path string) {
		if b.sample != nil {
			b = b.sample
		}
		for _, c := range b.blocks {
			walk(c, strings.TrimSpace(path+" "+c.name))
		}
		if path != "" && len(paths) < 2 && slices.Contains(b.names(), name) {
			paths = append(paths, path)
		}
	}
	walk(b, "")
	return paths
}

// suggest says where a name that is unknown in b may have been meant to go. root
// is the table that b is in.
func (b *block) suggest(name string, root *block) string {
	var hints []string
	if f := b.foreign[name]; f != "" {
		return f
	}
	if near := didYouMean(name, b.names()); near != "" {
		hints = append(hints, near)
	} else if paths := b.find(name); len(paths) > 0 {
		hints = append(hints, "It belongs in the block "+strings.Join(paths, " or ")+".")
	} else if paths := root.find(name); len(paths) > 0 {
		hints = append(hints, "It belongs in the block "+strings.Join(paths, " or ")+".")
	}
	hints = append(hints, "Allowed here: "+strings.Join(b.names(), ", ")+".")
	return strings.Join(hints, " ")
}

// didYouMean suggests the known name nearest to one that is not known, "" if
// none is near. Case and dashes do not count; the end of a known name will do.
func didYouMean(name string, known []string) string {
	if len(name) > 64 {
		return ""
	}
	fold := strings.ReplaceAll(strings.ToLower(name), "-", "_")
	best, least := "", 3
	for _, k := range known {
		d := levenshtein.Distance(fold, k, nil)
		if d > 1 && len(k) > 3 && (strings.HasSuffix(fold, "_"+k) || strings.HasSuffix(k, "_"+fold)) {
			d = 1
		}
		if d < least && d < len(k)-1 {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return `Did you mean "` + best + `"?`
}

// join puts sentences together.
func join(sentences ...string) string {
	return strings.Join(slices.DeleteFunc(sentences, func(s string) bool { return s == "" }), " ")
}
