package discovery

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	tokenLimit = 4096            // bytes of a token file
	tokenEvery = 2 * time.Second // between two looks into it
)

// tokens gives the ACL token of each request. A file is read again when a request
// is made, at most every tokenEvery; that is cheaper to get right than finding out
// whether it changed. It is safe for concurrent use.
type tokens struct {
	path string // "": the token never changes
	now  func() time.Time
	log  hclog.Logger

	mu      sync.Mutex
	current string
	before  string // replaced by current; kept to be redacted
	looked  time.Time
	told    string // the trouble that was logged
}

// newTokens reads the file, which must hold a token by now: starting without one
// would be to ask without rights, which Consul answers with an empty list.
func newTokens(path, fixed string, now func() time.Time, log hclog.Logger) (*tokens, error) {
	t := &tokens{path: path, now: now, log: log, current: fixed}
	if path == "" {
		return t, nil
	}
	token, err := readToken(path)
	if err != nil {
		return nil, fmt.Errorf("token_file: %w", err)
	}
	t.current, t.looked = token, now()
	return t, nil
}

// get returns the token to use now; "": none.
func (t *tokens) get() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.path == "" || t.now().Sub(t.looked) < tokenEvery {
		return t.current
	}
	t.looked = t.now()
	token, err := readToken(t.path)
	if err != nil {
		// Not without a token: see newTokens.
		if text := err.Error(); text != t.told {
			t.told = text
			t.log.Warn("no Consul token from its file: going on with the last one", "error", text)
		}
		return t.current
	}
	t.told = ""
	if token != t.current {
		t.before, t.current = t.current, token
		t.log.Info("the Consul token has changed", "file", t.path)
	}
	return t.current
}

// stale makes the next get look into the file.
func (t *tokens) stale() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.looked = time.Time{}
}

// redact cuts the newest tokens out of what others wrote.
func (t *tokens) redact(text []byte) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range []string{t.current, t.before} {
		if s != "" {
			text = bytes.ReplaceAll(text, []byte(s), []byte(redacted))
		}
	}
	return text
}

func readToken(path string) (string, error) {
	if info, err := os.Stat(path); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", path) // a pipe would block
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was read only
	data, err := io.ReadAll(io.LimitReader(f, tokenLimit+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	switch {
	case token == "":
		return "", fmt.Errorf("%s is empty", path)
	case len(data) > tokenLimit || !tokenText(token):
		return "", fmt.Errorf("%s does not hold one ACL token and nothing else", path)
	}
	return token, nil
}

// tokenText reports whether all characters may be in an ACL token.
func tokenText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
