//go:build unix

package statefile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const name = "web.snapshot"

func TestWriteAndRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "var", "discovery")
	if _, _, err := Read(dir, name, 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	for _, payload := range []string{"", "x", "line\nline\n", strings.Repeat("long", 25)} {
		if err := Write(dir, name, []byte(payload)); err != nil {
			t.Fatal(err)
		}
		got, changed, err := Read(dir, name, 100)
		if err != nil || string(got) != payload || time.Since(changed).Abs() > time.Minute {
			t.Errorf("%q came back as %q of %v, %v", payload, got, changed, err)
		}
	}
	for path, mode := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, name): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %o", path, st, err, mode)
		}
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("left behind: %v", list)
	}
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := Touch(dir, name, at); err != nil {
		t.Fatal(err)
	}
	if _, changed, err := Read(dir, name, 100); err != nil || !changed.Equal(at) {
		t.Errorf("touched: %v, %v", changed, err)
	}
}

// Every byte that is changed, every place where the file is cut and every byte
// behind its end shows.
func TestDamage(t *testing.T) {
	whole := append(head([]byte("payload")), "payload"...)
	if got, err := Decode(bytes.NewReader(whole), 7); err != nil || string(got) != "payload" {
		t.Fatalf("%q, %v", got, err)
	}
	bad := func(what string, b []byte) {
		t.Helper()
		if got, err := Decode(bytes.NewReader(b), 7); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) || got != nil {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	for i := range whole {
		bad(fmt.Sprintf("cut at %d", i), whole[:i])
		for bit := range 8 {
			flipped := bytes.Clone(whole)
			flipped[i] ^= 1 << bit
			bad(fmt.Sprintf("bit %d of byte %d", bit, i), flipped)
		}
	}
	bad("longer", append(bytes.Clone(whole), 'x'))
	bad("twice", append(bytes.Clone(whole), whole...))
	bad("zeros", make([]byte, 4096)) // what some file systems leave after a power cut
	if _, err := Decode(bytes.NewReader(whole), 6); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "7 bytes, allowed are 6") {
		t.Errorf("too large: %v", err)
	}
	for _, line := range []string{"outrigger-snapshot 2 x\n", "outrigger-snapshot 10 7 aa\n", "outrigger-snapshot\u00201.1\n"} {
		if _, err := Decode(strings.NewReader(line+"payload"), 7); !errors.Is(err, ErrVersion) {
			t.Errorf("%q: %v", line, err)
		}
	}
	huge := fmt.Sprintf("outrigger-snapshot 1 %d %s\n", int64(1)<<62, strings.Repeat("0", 64))
	bad("a length of 2^62", []byte(huge))
	if _, err := Decode(strings.NewReader(huge), 1<<62); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a length of 2^62 that is allowed: %v", err)
	}
}

func TestUnsafe(t *testing.T) {
	good := string(head([]byte("p"))) + "p"
	for what, c := range map[string]struct {
		set  func(path string) error
		want string
	}{
		"link":      {func(p string) error { _ = os.WriteFile(p+"2", []byte(good), 0o600); return os.Symlink(p+"2", p) }, "too many levels"},
		"pipe":      {func(p string) error { return syscall.Mkfifo(p, 0o600) }, "no regular file"},
		"directory": {func(p string) error { return os.Mkdir(p, 0o700) }, "no regular file"},
		"anybody's": {func(p string) error { _ = os.WriteFile(p, []byte(good), 0o600); return os.Chmod(p, 0o602) }, "chmod 0600"},
		"open dir": {func(p string) error {
			_ = os.WriteFile(p, []byte(good), 0o600)
			return os.Chmod(filepath.Dir(p), 0o777)
		}, "chmod o-w"},
		"dir is a file": {func(p string) error { d := filepath.Dir(p); _ = os.Remove(d); return os.WriteFile(d, nil, 0o600) }, "not a directory"},
	} {
		dir := filepath.Join(t.TempDir(), "d")
		if err := errors.Join(os.Mkdir(dir, 0o700), c.set(filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
		if got, _, err := Read(dir, name, 100); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	dir := t.TempDir()
	if err := Write(dir, name, []byte("p")); err != nil {
		t.Fatal(err)
	}
	if os.Chown(filepath.Join(dir, name), 12345, -1) == nil && os.Geteuid() == 0 {
		if _, _, err := Read(dir, name, 100); !errors.Is(err, ErrUnsafe) {
			t.Errorf("another user's: %v", err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, name, []byte("p")); !errors.Is(err, ErrUnsafe) {
		t.Errorf("writing into a directory that is everybody's: %v", err)
	}
}

// A link in the place of the file is replaced, not followed.
func TestWriteReplacesLink(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("v"), 0o600), os.Symlink(victim, filepath.Join(dir, name))); err != nil {
		t.Fatal(err)
	}
	if err := Touch(dir, name, time.Unix(0, 0)); !errors.Is(err, ErrUnsafe) {
		t.Errorf("touching a link: %v", err)
	}
	if err := Write(dir, name, []byte("p")); err != nil {
		t.Fatal(err)
	}
	got, _, err := Read(dir, name, 100)
	if v, _ := os.ReadFile(victim); err != nil || string(got) != "p" || string(v) != "v" {
		t.Errorf("%q, %v, the link's target holds %q", got, err, v)
	}
}

// badFile is a file on a disk that fails.
type badFile struct {
	*os.File
	room          int
	sync, closing error
}

func (f *badFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p[:min(f.room, len(p))])
	if err == nil && n < len(p) {
		err = syscall.ENOSPC
	}
	return n, err
}
func (f *badFile) Sync() error  { return errors.Join(f.sync, f.File.Sync()) }
func (f *badFile) Close() error { return errors.Join(f.closing, f.File.Close()) }

// A write that fails leaves the old file and nothing else.
func TestDiskFails(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, name, []byte("old")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []badFile{{room: 0}, {room: 50}, {room: 999, sync: syscall.EIO}, {room: 999, closing: syscall.EDQUOT}} {
		d := disk{createTemp: func(dir, pattern string) (file, error) {
			f, err := os.CreateTemp(dir, pattern)
			bad.File = f
			return &bad, err
		}}
		err := d.write(dir, name, []byte("new"))
		var errno syscall.Errno
		if !errors.As(err, &errno) || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: %v", bad, err)
		}
		got, _, err := Read(dir, name, 100)
		if list, _ := os.ReadDir(dir); err != nil || string(got) != "old" || len(list) != 1 {
			t.Errorf("%+v: %q, %v, %v", bad, got, err, list)
		}
	}
}

// Whoever reads while others write gets what one of them wrote.
func TestWritersAndReaders(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, name, []byte(strings.Repeat("0", 5000))); err != nil {
		t.Fatal(err)
	}
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		writers.Go(func() {
			for range 20 {
				if err := Write(dir, name, bytes.Repeat([]byte{byte('0' + i)}, 5000*(i+1))); err != nil {
					t.Error(err)
				}
			}
		})
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				got, _, err := Read(dir, name, 1<<20)
				if err != nil || len(got) == 0 || len(bytes.TrimLeft(got, string(got[:1]))) != 0 {
					t.Errorf("%d bytes, %v", len(got), err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, n := range []string{".web.snapshot.123", ".web.snapshot.124", "web.snapshot", ".web.snapshot.x", ".other.123", "web.snapshot.123"} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if n != ".web.snapshot.124" { // in the making
			if err := os.Chtimes(filepath.Join(dir, n), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, err := Sweep(dir, ".snapshot", time.Now().Add(-time.Minute)); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 5 {
		t.Errorf("left: %v", list)
	}
	if n, err := Sweep(filepath.Join(dir, "none"), ".snapshot", time.Now()); n != 0 || err != nil {
		t.Errorf("no directory: %d, %v", n, err)
	}
}

func TestName(t *testing.T) {
	seen := map[string]string{}
	for _, label := range []string{"web", "Web", "", ".", "..", "../../etc/passwd", "a/b", "a%2Fb", "a b", "ü", "a.b", ".web",
		strings.Repeat("x", 180), strings.Repeat("x", 181), strings.Repeat("x", 253), strings.Repeat("ü", 120), "a~b", "a\x00b"} {
		n := Name(label, ".snapshot")
		if before, ok := seen[n]; ok {
			t.Errorf("%q and %q are both %q", before, label, n)
		}
		seen[n] = label
		if err := checkName(n); err != nil || filepath.Base(n) != n {
			t.Errorf("%q: %q, %v", label, n, err)
		}
	}
	if n := Name("web-1.dc_2", ".snapshot"); n != "web-1.dc_2.snapshot" {
		t.Errorf("a plain name is %q", n)
	}
	for _, n := range []string{"", ".", "..", ".x", "a/b", "../a", strings.Repeat("x", 300)} {
		if Write(t.TempDir(), n, nil) == nil {
			t.Errorf("%q was written", n)
		}
		if _, _, err := Read(t.TempDir(), n, 1); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("reading %q: %v", n, err)
		}
		if err := Touch(t.TempDir(), n, time.Now()); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("touching %q: %v", n, err)
		}
	}
}

// FuzzDecode: what is taken is what was written, byte for byte.
func FuzzDecode(f *testing.F) {
	f.Add(append(head([]byte("payload")), "payload"...))
	f.Add(append(head(nil), ' '))
	f.Add([]byte("outrigger-snapshot 2 0 \n"))
	f.Add([]byte("outrigger-snapshot 1 -0 \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		payload, err := Decode(bytes.NewReader(b), 1<<20)
		if err == nil && !bytes.Equal(append(head(payload), payload...), b) {
			t.Errorf("%q was taken as %q", b, payload)
		}
	})
}
