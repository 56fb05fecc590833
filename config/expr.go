package config

import (
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// A value is what the right side of a setting says.
type value struct {
	v any // string, *big.Float, bool, []value; nil is null
	// outside: env or file gave some of it, so that it may be a secret.
	outside bool
	at      hcl.Range
}

// eval reads an expression. The language is HCL's without what computes: texts
// with ${...}, numbers, true and false, lists, env and file. That keeps reading
// bounded, whatever the file says. False means that it was reported.
func (l *loader) eval(s *source, e hclsyntax.Expression) (value, bool) {
	v := value{at: e.Range()}
	switch e := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		return l.literal(s, v, e.Val)
	case *hclsyntax.TemplateExpr:
		return l.template(s, v, e)
	case *hclsyntax.TemplateWrapExpr:
		return l.eval(s, e.Wrapped)
	case *hclsyntax.ParenthesesExpr:
		return l.eval(s, e.Expression)
	case *hclsyntax.TupleConsExpr:
		list, good := make([]value, 0, len(e.Exprs)), true
		for _, x := range e.Exprs {
			item, ok := l.eval(s, x)
			good = good && ok
			v.outside = v.outside || item.outside
			list = append(list, item)
		}
		v.v = list
		return v, good
	case *hclsyntax.ObjectConsExpr:
		return l.object(s, v, e)
	case *hclsyntax.UnaryOpExpr:
		if lit, ok := e.Val.(*hclsyntax.LiteralValueExpr); ok && e.Op == hclsyntax.OpNegate && lit.Val.Type() == cty.Number {
			v.v = new(big.Float).Neg(lit.Val.AsBigFloat())
			return v, true
		}
	case *hclsyntax.FunctionCallExpr:
		return l.call(s, v, e)
	case *hclsyntax.ScopeTraversalExpr:
		l.report(v.at, "there are no variables here", `A text goes in quotes: "...". The environment is read with env("NAME"), a file with file("PATH").`)
		return v, false
	}
	if !s.broken {
		l.report(v.at, "nothing is computed here", `Allowed are texts in quotes with ${...}, numbers, true, false, lists in [...], env("NAME") and file("PATH").`)
	}
	return v, false
}

func (l *loader) literal(s *source, v value, lit cty.Value) (value, bool) {
	switch {
	case !lit.IsKnown(): // stands for what the parser could not read, and reported
		return v, false
	case lit.IsNull():
		l.report(v.at, "null is no value here", "Leave the line out to get the default.")
		return v, false
	case lit.Type() == cty.String:
		v.v = lit.AsString()
	case lit.Type() == cty.Number:
		v.v = lit.AsBigFloat()
	case lit.Type() == cty.Bool:
		v.v = lit.True()
	default:
		return v, false
	}
	return v, true
}

// template joins the parts of a text.
func (l *loader) template(s *source, v value, e *hclsyntax.TemplateExpr) (value, bool) {
	var b strings.Builder
	good := true
	for _, x := range e.Parts {
		part, ok := l.eval(s, x)
		if !ok {
			good = false
			continue
		}
		text, ok := part.v.(string)
		if !ok {
			l.report(part.at, "only text can be put into a text", "")
			good = false
		}
		v.outside = v.outside || part.outside
		b.WriteString(text)
	}
	v.v = b.String()
	return v, good
}

// call evaluates env(NAME), env(NAME, DEFAULT) and file(PATH). Arguments are
// written out, so that naming them in an error tells nothing new.
func (l *loader) call(s *source, v value, e *hclsyntax.FunctionCallExpr) (value, bool) {
	var use string
	switch e.Name {
	case "env":
		use = `Write env("NAME"), or env("NAME", "VALUE") with a value for when NAME is not set.`
	case "file":
		use = `Write file("PATH"); a relative path starts at the directory of this file.`
	default:
		l.report(e.NameRange, fmt.Sprintf("there is no function %.60q", e.Name),
			join(didYouMean(e.Name, []string{"env", "file"}), `Functions are env("NAME"), env("NAME", "VALUE") and file("PATH").`))
		return v, false
	}
	var args []string
	for _, x := range e.Args {
		t, ok := x.(*hclsyntax.TemplateExpr)
		if ok && t.IsStringLiteral() {
			args = append(args, t.Parts[0].(*hclsyntax.LiteralValueExpr).Val.AsString())
		}
	}
	most := 1
	if e.Name == "env" {
		most = 2
	}
	if len(args) < len(e.Args) || len(args) < 1 || len(args) > most || e.ExpandFinal {
		l.report(v.at, "wrong use of "+e.Name, use)
		return v, false
	}
	text, err := l.outside(s, e.Name, args)
	if err != nil {
		hint := ""
		if e.Name == "env" {
			hint = use
		}
		l.report(v.at, err.Error(), hint)
		return v, false
	}
	v.v, v.outside = text, true
	return v, true
}

// outside reads the environment or a file.
func (l *loader) outside(s *source, function string, args []string) (string, error) {
	var text, what string
	if function == "env" {
		what = fmt.Sprintf("the environment variable %s", args[0])
		got, ok := l.env.LookupEnv(args[0])
		if !ok && len(args) == 1 {
			return "", fmt.Errorf("%s is not set", what)
		}
		if !ok {
			got = args[1]
		}
		text = got
	} else {
		path := args[0]
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(s.name), path)
		}
		what = "the file " + path
		b, err := l.env.read(path, maxValue)
		if err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
		text = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	}
	if !utf8.ValidString(text) {
		return "", fmt.Errorf("%s does not hold UTF-8 text", what)
	}
	return text, nil
}
