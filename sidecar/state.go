package sidecar

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// ValidateKey reports a service that has affinity, but nothing to sign with.
func (s ServiceConfig) ValidateKey(stateDir string) error {
	if a := s.HTTP.Affinity; a.Cookie != "" && a.Secret == "" && stateDir == "" {
		return errors.New(`affinity has a cookie but nothing to sign it with: write secret = env("NAME") beside it, ` +
			`or outside the service blocks state_dir = "/var/lib/outrigger" or the like, where a key is then kept`)
	}
	return nil
}

// affinityKeys are the keys that services without a secret of their own have
// theirs of.
type affinityKeys struct{ state []byte }

// newAffinityKeys reads the key in the state directory, or makes it, if a service
// needs it.
func newAffinityKeys(cfg Config, log hclog.Logger) (k affinityKeys, err error) {
	for _, s := range cfg.Services {
		if a := s.HTTP.Affinity; a.Cookie != "" && a.Secret == "" {
			if k.state, err = stateKey(cfg.StateDir, log); err != nil {
				return k, fmt.Errorf("service %q: affinity: %w", s.Name, err)
			}
			return k, nil
		}
	}
	return k, nil
}

// of returns the key of a service, nil if it needs none. Every service has a key
// of its own, so that none takes another's cookies.
func (k affinityKeys) of(s *ServiceConfig) []byte {
	if s.HTTP.Affinity.Cookie == "" {
		return nil
	}
	master := k.state
	if secret := s.HTTP.Affinity.Secret; secret != "" {
		master = []byte(secret)
	}
	key, err := hkdf.Key(sha256.New, master, nil, "outrigger affinity 1 "+s.Name, sha256.Size)
	if err != nil {
		panic(err) // only of a length that is too large
	}
	return key
}

// keyFile is the key's file in the state directory: 64 hexadecimal digits.
const keyFile = "affinity.key"

// Of a key that another sidecar is just writing where there are no hard links.
const (
	shortTries = 20
	shortPause = 50 * time.Millisecond
)

var errShort = errors.New("too short")

// stateKey reads the key in the directory. If there is none it makes the
// directory and a key. Of several sidecars that do so at once, one's is taken by
// all.
func stateKey(dir string, log hclog.Logger) ([]byte, error) {
	path := filepath.Join(dir, keyFile)
	key, err := readKey(path, log)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(dir, path, os.Link); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("making the key %s: %w", path, err)
		}
		key, err = readKey(path, log)
	}
	for n := 0; errors.Is(err, errShort) && n < shortTries; n++ {
		time.Sleep(shortPause)
		key, err = readKey(path, log)
	}
	if err != nil {
		return nil, err
	}
	return key, tight(dir)
}

// readKey reads a key that nobody else can read.
func readKey(path string, log hclog.Logger) ([]byte, error) {
	f, err := openKey(path)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("the key %s is no regular file", path)
	}
	remark, err := private(path, st)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	text := strings.TrimSpace(string(b))
	key, err := hex.DecodeString(text)
	switch {
	case len(text) < 2*sha256.Size:
		err = errShort
	case err == nil && len(key) > sha256.Size:
		err = errors.New("too long")
	}
	if err != nil {
		return nil, fmt.Errorf("the key %s is not %d hexadecimal digits (%w): remove it to have another made", path, 2*sha256.Size, err)
	}
	if remark != "" {
		log.Warn(remark, "file", path)
	}
	return key, nil
}

// makeKey writes a random key so that it is there whole or not at all, and never
// in the place of another. Where there are no hard links (CIFS, some volumes of
// Kubernetes) others may see a part of it.
func makeKey(dir, path string, link func(old, new string) error) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+keyFile+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	text := fmt.Sprintf("%x\n", key)
	if err := writeKey(f, text); err != nil {
		return err
	}
	if err := link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return err
	} else if err != nil {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if err := writeKey(f, text); err != nil {
			return errors.Join(err, os.Remove(path))
		}
	}
	// Some file systems cannot do this for a directory. Without it the key may be
	// lost in a power cut, and another one is made.
	if d, err := os.Open(dir); err == nil {
		_, _ = d.Sync(), d.Close()
	}
	return nil
}

func writeKey(f *os.File, text string) error {
	_, err := f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}
