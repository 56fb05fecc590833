//go:build unix

package sidecar

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/discovery"
)

func TestStateKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "var", "state")
	key, err := stateKey(dir, hclog.NewNullLogger())
	if err != nil || len(key) != 32 {
		t.Fatalf("%x, %v", key, err)
	}
	again, err := stateKey(dir, hclog.NewNullLogger())
	if err != nil || !bytes.Equal(key, again) {
		t.Errorf("read again it is %x, %v", again, err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, keyFile): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %o", path, st, err, mode)
		}
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("left behind: %v", list)
	}
	other, err := stateKey(t.TempDir(), hclog.NewNullLogger())
	if err != nil || bytes.Equal(key, other) {
		t.Errorf("another directory has the key %x, %v", other, err)
	}
}

// Of sidecars that start at once, one's key is taken by all.
func TestStateKeyOfMany(t *testing.T) {
	dir := t.TempDir()
	keys := make([][]byte, 16)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = stateKey(dir, hclog.NewNullLogger()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, k := range keys {
		if !bytes.Equal(k, keys[0]) {
			t.Errorf("%d has %x, not %x", i, k, keys[0])
		}
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("left behind: %v", list)
	}
}

func TestBadStateKeys(t *testing.T) {
	good := strings.Repeat("0f", 32)
	for want, set := range map[string]func(path string) error{
		"run chmod 0600": func(path string) error { return os.WriteFile(path, []byte(good), 0o644) },
		"mode 0602":      func(path string) error { _ = os.WriteFile(path, []byte(good), 0o600); return os.Chmod(path, 0o602) },
		"run chmod o-w": func(path string) error {
			_ = os.WriteFile(path, []byte(good), 0o600)
			return os.Chmod(filepath.Dir(path), 0o777)
		},
		"not 64 hexadecimal": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"remove it":          func(path string) error { return os.WriteFile(path, []byte(good[2:]), 0o600) },
		"have another made":  func(path string) error { return os.WriteFile(path, []byte(strings.Repeat(good, 99)), 0o600) },
		"no regular file":    func(path string) error { return os.Mkdir(path, 0o700) },
		"is no regular":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"too many levels":    func(path string) error { return os.Symlink("/dev/zero", path) }, // ELOOP
		"not a directory": func(path string) error {
			_ = os.Remove(filepath.Dir(path))
			return os.WriteFile(filepath.Dir(path), nil, 0o600)
		},
		"reading the key: op": func(path string) error { return os.Symlink(path, path) },
	} {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := set(filepath.Join(dir, keyFile)); err != nil {
			t.Fatal(err)
		}
		key, err := stateKey(dir, hclog.NewNullLogger())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "0f0f") {
			t.Errorf("want %q: %x, %v", want, key, err)
		}
	}
	path := filepath.Join(t.TempDir(), keyFile)
	if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Chown(path, 12345, -1) == nil { // as root
		if key, err := stateKey(filepath.Dir(path), hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), "belongs to another user (12345") {
			t.Errorf("%x, %v", key, err)
		}
	}
	path = filepath.Join(t.TempDir(), keyFile)
	if err := os.WriteFile(path, []byte(" "+strings.ToUpper(good)+"\r\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	if key, err := stateKey(filepath.Dir(path), hclog.NewNullLogger()); err != nil || hex.EncodeToString(key) != good {
		t.Errorf("%x, %v", key, err)
	}
}

// The group may be let in, if the file is ours or the group's, and it is told.
func TestStateKeyOfAGroup(t *testing.T) {
	dir := t.TempDir()
	key, err := stateKey(dir, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, keyFile), 0o660); err != nil { // as Kubernetes does
		t.Fatal(err)
	}
	var log strings.Builder
	again, err := stateKey(dir, hclog.New(&hclog.LoggerOptions{Output: &log}))
	if err != nil || !bytes.Equal(key, again) || strings.Count(log.String(), "[WARN]") != 1 || !strings.Contains(log.String(), "can use the key") {
		t.Errorf("%x, %v, log %q", again, err, log.String())
	}
	for _, c := range []struct {
		mode     os.FileMode
		uid, gid int
		want     string // of the remark or the error
	}{
		{0o600, 10, 20, ""},
		{0o400, 0, 99, ""},
		{0o640, 10, 99, "the group 99 can use"},
		{0o660, 0, 21, "the group 21 can use"},
		{0o640, 0, 99, "can be used by others"},
		{0o640, 11, 20, "belongs to another user (11, this process runs as 10)"},
		{0o600, 11, 20, "belongs to another user"},
		{0o644, 10, 20, "can be used by others"},
		{0o601, 10, 20, "can be used by others"},
	} {
		remark, err := keyOf{"k", c.mode, c.uid, c.gid}.check(10, []int{20, 21})
		got := remark
		if err != nil {
			got = err.Error()
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) || strings.Contains(c.want, "the group") != (remark != "") {
			t.Errorf("%o of %d:%d: %q, %v; want %q", c.mode, c.uid, c.gid, remark, err, c.want)
		}
	}
}

// Where there are no hard links a key is made too, and never in another's place.
func TestStateKeyWithoutLinks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, keyFile)
	none := func(string, string) error { return syscall.EPERM }
	if err := makeKey(dir, path, none); err != nil {
		t.Fatal(err)
	}
	key, err := stateKey(dir, hclog.NewNullLogger())
	if err != nil || len(key) != 32 {
		t.Fatalf("%x, %v", key, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if err := makeKey(dir, path, none); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	if again, err := stateKey(dir, hclog.NewNullLogger()); err != nil || !bytes.Equal(again, key) {
		t.Errorf("%x became %x, %v", key, again, err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("left behind: %v", list)
	}
	// A key that another sidecar is just writing is waited for.
	if err := os.WriteFile(path, []byte("0f"), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := strings.Repeat("0f", 32)
	wrote := make(chan error, 1)
	go func() {
		time.Sleep(shortPause) // either order is right; this one mostly has it short first
		wrote <- os.WriteFile(path, []byte(whole), 0o600)
	}()
	if got, err := stateKey(dir, hclog.NewNullLogger()); err != nil || hex.EncodeToString(got) != whole {
		t.Errorf("%x, %v", got, err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// Every service has a key of its own, the same one each time, of the secret or
// of the state directory.
func TestAffinityKeys(t *testing.T) {
	cfg := DefaultConfig()
	cfg.StateDir = filepath.Join(t.TempDir(), "state")
	add := func(name, cookie string, secret discovery.Secret) {
		s := DefaultService(name)
		s.HTTP.Affinity.Cookie, s.HTTP.Affinity.Secret = cookie, secret
		cfg.Services = append(cfg.Services, s)
	}
	add("none", "", "")
	add("a", "pin", "0123456789abcdef")
	add("b", "pin", "0123456789abcdef")
	keys, err := newAffinityKeys(cfg, hclog.NewNullLogger())
	if err != nil || keys.state != nil {
		t.Errorf("%v, a key of the state directory that nobody needs: %x", err, keys.state)
	}
	if _, err := os.Stat(cfg.StateDir); err == nil {
		t.Error("a state directory that nobody needs")
	}
	add("c", "pin", "")
	add("d", "pin", "")
	seen := map[string]string{}
	for round := range 2 {
		keys, err = newAffinityKeys(cfg, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range cfg.Services {
			key := string(keys.of(&s))
			if was, ok := seen[s.Name]; ok && key != was || (key == "") != (s.Name == "none") {
				t.Errorf("round %d: %s has the key %x, before %x", round, s.Name, key, was)
			}
			for name, other := range seen {
				if other == key && name != s.Name {
					t.Errorf("%s and %s have one key", name, s.Name)
				}
			}
			seen[s.Name] = key
		}
	}
	cfg.StateDir = "/dev/null/state"
	if _, err := newAffinityKeys(cfg, hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), `service "c": affinity: `) {
		t.Errorf("%v", err)
	}
	cfg.StateDir = "/var/\n"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), `state_dir is "/var/\n", which is no absolute path of printable characters`) {
		t.Errorf("%v", err)
	}
	cfg.StateDir = ""
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), `service "d": affinity has a cookie but nothing to sign it with`) {
		t.Errorf("%v", err)
	}
}
