package declared

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// TestQueriesAreNotLogged: a token in the URL shows in no log and no error.
func TestQueriesAreNotLogged(t *testing.T) {
	cfg := DefaultConfig()
	cfg.URL, cfg.Field = "http://127.0.0.1:1/m?token=s3cr3t", "n" // nobody is at port 1
	var buf bytes.Buffer
	s, err := New(cfg, Env{Logger: hclog.New(&hclog.LoggerOptions{Output: &buf})})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err = s.Read(t.Context()); err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("error %v", err)
	}
	if text := buf.String(); strings.Contains(text, "s3cr3t") || !strings.Contains(text, "/m?[redacted]") {
		t.Errorf("the log: %s", text)
	}
}
