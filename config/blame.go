package config

import (
	"cmp"
	"math"
	"regexp"
	"slices"
	"strings"
)

// blame reports what validate objects to, each at the setting that caused it.
//
// The ranges are known to each package's Validate alone, and some of these tell
// only of the first thing that is wrong. So the cause is found by trial (see
// causes). It is then put back to its default, and the next error shows. Errors
// that come of such a default, and not of the file, are left out: at worst the
// next run reports them.
func (l *loader) blame(sec *section, validate func() error) {
	real := map[string]bool{} // shapes of errors that the file itself has
	for _, e := range leaves(validate()) {
		real[shape(e)] = true
	}
	t := trial{validate: validate, left: slices.Clone(sec.given)}
	done := map[string]bool{}
	var reverted []failed
	for {
		e, ok := t.next(done)
		if !ok {
			return
		}
		causes := t.causes(e)
		if len(causes) == 0 {
			done[e] = true
			if !slices.ContainsFunc(sec.failed, func(x failed) bool { return mentions(e, x.name) >= 0 }) {
				l.report(sec.header, e, "")
			}
			continue
		}
		g := causes[0]
		explains := func(x failed) bool { return (x.in == g.in || x.in == nil) && mentions(e, x.name) >= 0 }
		if !slices.ContainsFunc(sec.failed, explains) &&
			(real[shape(e)] || !slices.ContainsFunc(reverted, explains)) {
			real[shape(e)] = true
			l.report(g.at, t.discreet(e, g), "")
		}
		g.dest.reset()
		reverted = append(reverted, failed{g.name, g.in})
		t.left = slices.DeleteFunc(t.left, func(x given) bool { return x.dest == g.dest })
	}
}

// trial finds causes of errors among the settings that are left.
type trial struct {
	validate func() error
	left     []given
}

// next returns the first error that was not dealt with.
func (t *trial) next(done map[string]bool) (string, bool) {
	for _, e := range leaves(t.validate()) {
		if !done[e] {
			return e, true
		}
	}
	return "", false
}

// causes returns a smallest set of settings that together bring about the error
// e while all others have their defaults, in the order in which e names them.
// Smallest in the sense that none can be left out: a pass that leaves one out
// may make others needless (one whose default is at odds with it), so passes
// are repeated until nothing changes.
func (t *trial) causes(e string) []given {
	set := slices.Clone(t.left)
	var undos []func()
	for n := len(set) + 1; len(set) < n; {
		n = len(set)
		set = slices.DeleteFunc(set, func(g given) bool {
			undo := g.dest.reset()
			if !slices.ContainsFunc(leaves(t.validate()), func(x string) bool { return shape(x) == shape(e) }) {
				undo()
				return false
			}
			undos = append(undos, undo)
			return true
		})
	}
	for _, undo := range slices.Backward(undos) {
		undo()
	}
	slices.SortStableFunc(set, func(a, b given) int {
		// What is not mentioned comes last, and blocks' names after settings: they are
		// not the cause where a setting is.
		rank := func(g given) int {
			switch at := mentions(e, g.name); {
			case at < 0 && g.label:
				return math.MaxInt
			case at < 0:
				return math.MaxInt - 1
			case g.label:
				return len(e) + at
			default:
				return at
			}
		}
		return cmp.Compare(rank(a), rank(b))
	})
	return set
}

// discreet returns e, which is reported at g, without the values that env or
// file read: it asks validate again with other values in their place.
func (t *trial) discreet(e string, g given) string {
	shown := slices.DeleteFunc(slices.Clone(t.left), func(x given) bool {
		if !x.outside {
			return true
		}
		undo := x.dest.reset()
		defer undo()
		return slices.Contains(leaves(t.validate()), e)
	})
	if len(shown) == 0 {
		return e
	}
	var stand []string
	for _, x := range shown {
		undo, text := x.dest.hide()
		defer undo()
		if text != "" {
			stand = append(stand, text, hiddenText)
		}
	}
	plain := ""
	for _, x := range leaves(t.validate()) {
		y := strings.NewReplacer(stand...).Replace(x)
		if strings.Contains(y, hiddenText) && (plain == "" || shape(x) == shape(e)) {
			plain = y
		}
	}
	if plain == "" {
		plain = g.name + " has a value that is not allowed (it comes from env or file and is not shown)"
	}
	return plain
}

// leaves returns the texts of an error and of those joined in it.
func leaves(err error) []string {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []string
		for _, e := range joined.Unwrap() {
			all = append(all, leaves(e)...)
		}
		return all
	}
	return []string{err.Error()}
}

var values = regexp.MustCompile(`"(\\.|[^"\\])*"|[^\s(),:]*[0-9][^\s(),:]*`)

// shape is an error's text without quoted texts and figures: what stays the
// same when only the values in it change.
func shape(e string) string { return values.ReplaceAllString(e, "") }

// mentions returns where e has name as a whole word, -1 if nowhere.
func mentions(e, name string) int {
	for from := 0; ; {
		i := strings.Index(e[from:], name)
		if i < 0 {
			return -1
		}
		i += from
		if !wordAt(e, i-1) && !wordAt(e, i+len(name)) {
			return i
		}
		from = i + 1
	}
}

func wordAt(s string, i int) bool {
	if i < 0 || i >= len(s) {
		return false
	}
	c := s[i]
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
