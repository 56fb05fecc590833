package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"outrigger/discovery"
	"outrigger/sidecar"
)

// loader gathers what the files say and what is wrong with them.
type loader struct {
	env       Env
	root      *block
	byName    map[string]*source
	problems  Problems
	addresses []address
	services  []*section // one for each service block
}

// address is a listener's, to find two that are the same.
type address struct {
	text  string
	of    string
	at    hcl.Range
	shown bool // no secret
}

// section is what is validated together: all outside services, one service, or
// the agent.
type section struct {
	given  []given
	failed []failed
	header hcl.Range // zero: no single place
}

// failed is a setting without its value: missing, or reported as malformed.
type failed struct {
	name string
	in   *instance // nil: what Validate says of it is of no use anywhere
}

// given is a setting that a file sets.
type given struct {
	name    string
	dest    dest
	at      hcl.Range
	in      *instance
	outside bool // the value may be a secret: env or file gave it
	label   bool // it is a block's name
}

// instance is one block of the files.
type instance struct {
	*block
	path   string // as messages name it
	label  string
	header hcl.Range
	seen   map[string]hcl.Range // what the block already has
	sec    *section
}

func newInstance(b *block, path, label string, header hcl.Range, sec *section) *instance {
	return &instance{block: b, path: path, label: label, header: header, seen: map[string]hcl.Range{}, sec: sec}
}

// load reads files into the root's table.
func (l *loader) load(paths []string) *instance {
	root := newInstance(l.root, "", "", hcl.Range{}, &section{})
	for _, s := range l.read(l.expand(paths)) {
		l.parse(s)
		for _, p := range s.pieces {
			s.cut = p.cut
			l.fill(s, root, p.body)
		}
	}
	return root
}

// read returns the files that can be read, none if they are too large together.
func (l *loader) read(names []string) []*source {
	var list []*source
	all := 0
	for i, name := range names {
		b, err := l.env.read(name, maxFile)
		if err != nil {
			l.add(Problem{File: name, Message: err.Error(), order: i})
			continue
		}
		if all += len(b); all > maxAll {
			l.add(Problem{File: name, order: i, Message: "with this file the configuration is larger than " + sizeText(maxAll) + ", the most that is read"})
			return nil
		}
		s := &source{name: name, order: i, bytes: b}
		l.byName[name] = s
		list = append(list, s)
	}
	return list
}

// broken reports whether a part of the files could not be read.
func (l *loader) broken() bool {
	for _, p := range l.problems {
		if p.Line == 0 {
			return true
		}
	}
	for _, s := range l.byName {
		if s.broken {
			return true
		}
	}
	return false
}

// fill sets what a body says, in the order of its lines.
func (l *loader) fill(s *source, in *instance, body *hclsyntax.Body) {
	if body == nil {
		return
	}
	attrs := make([]*hclsyntax.Attribute, 0, len(body.Attributes))
	for _, a := range body.Attributes {
		if a.SrcRange.End.Byte <= s.cut {
			attrs = append(attrs, a)
		}
	}
	slices.SortFunc(attrs, func(a, b *hclsyntax.Attribute) int {
		return cmp.Compare(a.NameRange.Start.Byte, b.NameRange.Start.Byte)
	})
	for _, a := range attrs {
		l.fillSetting(s, in, a)
	}
	for _, b := range body.Blocks {
		if b.OpenBraceRange.Start.Byte < s.cut {
			l.fillBlock(s, in, b)
		}
	}
}

// lookup returns the setting that an attribute names, nil after reporting that
// there is none.
func (l *loader) lookup(in *instance, a *hclsyntax.Attribute) *setting {
	if set := in.setting(a.Name); set != nil {
		return set
	}
	label, other := in.variant(in.label, a.Name)
	child := in.block.block(a.Name)
	switch {
	case other != nil && label == in.label:
		return other
	case other != nil:
		l.report(a.NameRange, fmt.Sprintf("%s %q has no setting %q", in.name, in.label, a.Name),
			fmt.Sprintf("It is one of %s %q.", in.name, label))
	case child != nil:
		l.report(a.NameRange, fmt.Sprintf("%q is a block", a.Name), fmt.Sprintf("Write %s, without =.", child.form()))
	default:
		l.unknown(in, a.Name, "setting", a.NameRange)
	}
	return nil
}

func (l *loader) fillSetting(s *source, in *instance, a *hclsyntax.Attribute) {
	set := l.lookup(in, a)
	if set == nil || !l.first(in, a.Name, a.NameRange) {
		return
	}
	v, ok := l.eval(s, a.Expr)
	if !ok {
		in.sec.failed = append(in.sec.failed, failed{a.Name, in})
		return
	}
	if f := set.dest.set(v); f != nil {
		at := v.at
		if f.item != nil {
			at = f.item.at
		}
		l.report(at, a.Name+" "+f.message, f.hint)
		in.sec.failed = append(in.sec.failed, failed{a.Name, in})
		return
	}
	if text, ok := v.v.(string); ok && hasPassword(text) {
		v.outside = true
	}
	in.sec.given = append(in.sec.given, given{a.Name, set.dest, v.at, in, v.outside, false})
	if set.address {
		l.addresses = append(l.addresses, address{v.v.(string), in.path, v.at, !v.outside})
	}
}

func (l *loader) fillBlock(s *source, in *instance, b *hclsyntax.Block) {
	name := b.TypeRange
	child := in.block.block(b.Type)
	switch {
	case child != nil:
	case in.setting(b.Type) != nil:
		l.report(name, fmt.Sprintf("%q is no block", b.Type), fmt.Sprintf("Write %s = ...", b.Type))
		return
	default:
		l.unknown(in, b.Type, "block", name)
		return
	}
	wantsLabel := child.label != nil || child.each != nil || child.add != nil
	if len(b.Labels) > 1 || (len(b.Labels) == 1) != wantsLabel && (child.otherwise == "" || len(b.Labels) == 1) {
		allowed := "no name"
		if wantsLabel {
			allowed = "one name"
		}
		if !s.broken {
			l.report(b.DefRange(), fmt.Sprintf("a block %s has %s", b.Type, allowed), fmt.Sprintf("Write %s.", child.form()))
		}
		return
	}
	path := strings.TrimSpace(in.path + " " + b.Type)
	if child.each != nil {
		l.fillEach(s, in, child, b)
		return
	}
	if child.add != nil {
		l.fillNamed(s, in, child, b)
		return
	}
	if !l.first(in, b.Type, b.DefRange()) {
		return
	}
	label := child.otherwise
	if wantsLabel && len(b.Labels) == 1 {
		label = b.Labels[0]
		v := value{v: label, at: b.LabelRanges[0]}
		if f := child.label.set(v); f != nil {
			l.report(v.at, b.Type+" "+f.message, f.hint)
			return
		}
		in.sec.given = append(in.sec.given, given{b.Type, child.label, v.at, in, false, true})
		path += fmt.Sprintf(" %q", label)
	}
	inst := newInstance(child, path, label, b.DefRange(), in.sec)
	l.fill(s, inst, b.Body)
	l.require(s, inst)
}

// fillNamed fills one of the blocks of a service that may repeat.
func (l *loader) fillNamed(s *source, in *instance, kind *block, b *hclsyntax.Block) {
	label := b.Labels[0]
	if !l.first(in, fmt.Sprintf("%s %q", b.Type, label), b.DefRange()) {
		return
	}
	table := kind.add(label)
	inst := newInstance(table, strings.TrimSpace(fmt.Sprintf("%s %s %q", in.path, b.Type, label)), label, b.DefRange(), in.sec)
	l.fill(s, inst, b.Body)
	l.require(s, inst)
}

// fillEach fills one of the blocks that may repeat, under different names.
func (l *loader) fillEach(s *source, in *instance, kind *block, b *hclsyntax.Block) {
	label := b.Labels[0]
	if err := (discovery.Query{Service: label}).Validate(); err != nil {
		l.report(b.LabelRanges[0], fmt.Sprintf("%.80q is no name for a %s", label, b.Type),
			"Allowed are up to 253 printable characters other than /.")
		label = "unnamed"
	} else {
		l.first(in, fmt.Sprintf("%s %q", b.Type, label), b.DefRange())
	}
	table, validate := kind.each(label)
	sec := &section{header: b.DefRange()}
	l.services = append(l.services, sec)
	inst := newInstance(table, fmt.Sprintf("%s %q", b.Type, label), label, b.DefRange(), sec)
	l.fill(s, inst, b.Body)
	l.require(s, inst)
	l.blame(sec, validate)
}

// require reports settings without a default that the block lacks.
func (l *loader) require(s *source, in *instance) {
	for _, set := range in.settings {
		if !set.required {
			continue
		}
		if _, ok := in.seen[set.name]; ok {
			continue
		}
		in.sec.failed = append(in.sec.failed, failed{set.name, nil})
		if !s.broken {
			l.report(in.header, fmt.Sprintf("%s has no %s", in.path, set.name),
				fmt.Sprintf("It has no default: write %s = %s or the like.", set.name, set.dest.text()))
		}
	}
}

// first reports whether name is new in the block, else it complains.
func (l *loader) first(in *instance, name string, at hcl.Range) bool {
	if before, ok := in.seen[name]; ok {
		l.report(at, name+" is there twice", fmt.Sprintf("It is already at %s.", place(before)))
		return false
	}
	in.seen[name] = at
	return true
}

func (l *loader) unknown(in *instance, name, what string, at hcl.Range) {
	message := fmt.Sprintf("unknown %s %.60q", what, name)
	if in.path != "" {
		message += " in " + in.path
	}
	l.report(at, message, in.suggest(name, l.root))
}

// form is how a block is written.
func (b *block) form() string {
	if b.label != nil || b.each != nil || b.add != nil {
		return b.name + ` "NAME" { ... }`
	}
	return b.name + " { ... }"
}

func place(at hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", at.Filename, at.Start.Line, at.Start.Column)
}

// collisions reports listeners that share an address.
func (l *loader) collisions() {
	seen := map[string]address{}
	for _, a := range l.addresses {
		if _, socket := sidecar.SocketPath(a.text); !socket && strings.HasSuffix(a.text, ":0") {
			continue // each takes a port of its own
		}
		before, ok := seen[a.text]
		if !ok {
			seen[a.text] = a
			continue
		}
		what := "the same address"
		if a.shown && before.shown {
			what = fmt.Sprintf("%q", a.text)
		}
		hint := ""
		if before.at.Filename != "" {
			hint = fmt.Sprintf("That is at %s.", place(before.at))
		}
		l.report(a.at, fmt.Sprintf("%s listens on %s, as does %s", a.of, what, before.of), hint)
	}
}
