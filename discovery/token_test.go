package discovery

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Unix(1000, 0)
	var out bytes.Buffer
	log := hclog.New(&hclog.LoggerOptions{Output: &out})
	read := func() (*tokens, error) {
		return newTokens(path, "fixed", func() time.Time { return now }, log)
	}
	for _, text := range []string{"", " \n", "two words", "line\nline", "nul\x00", "töken", strings.Repeat("x", tokenLimit+1)} {
		write(text)
		if _, err := read(); err == nil || !strings.Contains(err.Error(), path) || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	write("first\n")
	tok, err := read()
	if err != nil {
		t.Fatal(err)
	}
	step := func(want string) {
		t.Helper()
		if got := tok.get(); got != want {
			t.Fatalf("token %q, want %q", got, want)
		}
	}
	step("first")
	write("second")
	step("first") // it has just looked
	now = now.Add(tokenEvery)
	step("second")
	// Whatever becomes of the file, the last token is used, and told of once.
	for _, spoil := range []func() error{
		func() error { return os.Truncate(path, 0) },
		func() error { return os.Remove(path) },
		func() error { return os.Mkdir(path, 0o700) },
		func() error { return os.Remove(path) },
		func() error { return syscall.Mkfifo(path, 0o600) }, // opening one blocks
		func() error { return os.Remove(path) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(tokenEvery)
		step("second")
		now = now.Add(tokenEvery)
		step("second")
	}
	if n := strings.Count(out.String(), "going on with the last one"); n != 6 {
		t.Errorf("told %d times of 6 troubles:\n%s", n, out.String())
	}
	write("third")
	tok.stale() // after a 403: at once
	step("third")
	if got := string(tok.redact([]byte("ACL second not found, nor third, but first"))); got != "ACL [redacted] not found, nor [redacted], but first" {
		t.Errorf("redacted to %q", got)
	}
	for _, secret := range []string{"first", "second", "third"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the log has the token %q:\n%s", secret, out.String())
		}
	}
	fixed, err := newTokens("", "fixed", time.Now, log)
	if err != nil || fixed.get() != "fixed" {
		t.Errorf("got %v", err)
	}
}

// FuzzTokenFile: what is taken for a token can be put into a header.
func FuzzTokenFile(f *testing.F) {
	for _, s := range []string{"", "a", "e95b599e-166e-7d80-08ad-aee76e7ddf19\n", "a b", "a\r\nX: y", "\xff", "\t token \n"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "token")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		token, err := readToken(path)
		if (err == nil) == (token == "") {
			t.Fatalf("%q: %q, %v", data, token, err)
		}
		for _, b := range []byte(token) {
			if b <= ' ' || b >= 0x7f {
				t.Fatalf("%q is taken for a token", token)
			}
		}
		if err != nil && len(bytes.TrimSpace(data)) > 8 && strings.Contains(err.Error(), string(bytes.TrimSpace(data))) {
			t.Fatalf("the error holds what is in the file: %v", err)
		}
	})
}
