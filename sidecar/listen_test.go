package sidecar

import (
	"strings"
	"testing"
)

func TestValidateListen(t *testing.T) {
	long := "unix:/" + strings.Repeat("x", maxSocketPath-1)
	for _, tt := range []struct {
		listen, mode string
		want         string // "": valid
	}{
		{"127.0.0.1:80", "0600", ""},
		{":0", "0600", ""},
		{"[::1]:80", "0600", ""},
		{"127.0.0.1:80", "0660", "listen is no Unix socket"},
		{"127.0.0.1", "0600", `is not "ADDR:PORT" or "unix:/PATH"`},
		{"127.0.0.1:http", "0600", "the port is not a number"},
		{"127.0.0.1:65536", "0600", "the port is not a number"},
		{"unix:/run/web.sock", "0600", ""},
		{"unix:/run/web.sock", "0666", ""},
		{"unix:/run/web.sock", "777", ""},
		{"unix:/run/web.sock", "0o660", "listen_mode"},
		{"unix:/run/web.sock", "1777", "listen_mode"},
		{"unix:/run/web.sock", "0400", "listen_mode"},
		{"unix:/run/web.sock", "", "listen_mode"},
		{"unix:/run/web.sock", "u=rw", "listen_mode"},
		{"unix:", "0600", "an absolute path"},
		{"unix:web.sock", "0600", "an absolute path"},
		{"unix:/run/./web.sock", "0600", `"/run/web.sock"`},
		{"unix:/run/", "0600", `"/run"`},
		{"unix:@web", "0600", "abstract"},
		{"unix:\x00web", "0600", "abstract"},
		{"unix:/a\x00b", "0600", "abstract"},
		{"unix@/run/web.sock", "0600", `written "unix:/PATH"`},
		{"/run/web.sock", "0600", `written "unix:/PATH"`},
		{long, "0600", ""},
		{long + "x", "0600", "bytes long, the system allows"},
	} {
		err := validateListen(tt.listen, tt.mode)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%q %q: %v, want %q", tt.listen, tt.mode, err, tt.want)
		}
	}
}

func TestSameListener(t *testing.T) {
	for listen, twice := range map[string]bool{"127.0.0.1:80": false, ":0": true, "unix:/run/a": false, "unix:/run/a:0": false} {
		cfg := DefaultConfig()
		for _, name := range []string{"a", "b"} {
			s := DefaultService(name)
			s.Listen = listen
			cfg.Services = append(cfg.Services, s)
		}
		err := cfg.Validate()
		if ok := err == nil; ok != twice || !ok && !strings.Contains(err.Error(), "both listen on "+listen) {
			t.Errorf("two services on %s: %v", listen, err)
		}
	}
}

func FuzzValidateListen(f *testing.F) {
	f.Add("unix:/run/web.sock", "0660")
	f.Add("[::1]:80", "0600")
	f.Add("unix:@x", "777")
	f.Fuzz(func(t *testing.T, listen, mode string) {
		if validateListen(listen, mode) != nil {
			return
		}
		if path, ok := SocketPath(listen); ok && (path[0] != '/' || len(path) > maxSocketPath || strings.Contains(path, "\x00")) {
			t.Errorf("%q is valid", listen)
		}
		if m, err := parseMode(mode); err != nil || m&^0o777 != 0 || m&0o600 != 0o600 {
			t.Errorf("mode %q is valid: %v %v", mode, m, err)
		}
	})
}
