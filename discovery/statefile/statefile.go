// Package statefile keeps a program's state in files that are there whole or not
// at all, and says of a file that is neither that it is none.
//
// A file is one line, "outrigger-snapshot 1 BYTES SHA256\n", with the length of
// what follows in decimal and its sum in hexadecimal, and then just that.
package statefile

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A missing file is fs.ErrNotExist.
var (
	// ErrCorrupt is a file that was torn, changed or cut, or is another program's.
	ErrCorrupt = errors.New("the file is damaged")
	// ErrVersion is a file of another version of this format.
	ErrVersion = errors.New("the file has another version")
	// ErrUnsafe is a file that others than this process's user could have written.
	ErrUnsafe = errors.New("the file cannot be trusted")
)

const (
	magic   = "outrigger-snapshot"
	version = "1"
	// maxHead is above the longest first line: two words, 19 digits, 64 digits.
	maxHead = 128
)

// Write replaces DIR/NAME by a file with this payload. Readers see the old one or
// the new one, also after a power cut. The directory is made, with mode 0700, and
// the file has mode 0600. Several processes may write the same name: the last one
// stays. An error names the file.
func Write(dir, name string, payload []byte) error {
	return disk{createTemp: createTemp}.write(dir, name, payload)
}

// disk is where a test puts a full one.
type disk struct {
	createTemp func(dir, pattern string) (file, error)
}

type file interface {
	io.Writer
	Sync() error
	Close() error
	Name() string
}

func createTemp(dir, pattern string) (file, error) { return os.CreateTemp(dir, pattern) } // mode 0600

func (d disk) write(dir, name string, payload []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	fail := func(err error) error { return fmt.Errorf("writing %s: %w", path, err) }
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	if err := tight(dir); err != nil {
		return fail(err)
	}
	f, err := d.createTemp(dir, tempPrefix+name+".*")
	if err != nil {
		return fail(err)
	}
	_, err = f.Write(append(head(payload), payload...)) // one write: nothing is buffered beside it
	// Without the first Sync a power cut may leave the new name with no content.
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fail(errors.Join(err, os.Remove(f.Name())))
	}
	// Some file systems cannot do this for a directory. Without it a power cut may
	// bring the old file back, which is whole too.
	if d, err := os.Open(dir); err == nil {
		_, _ = d.Sync(), d.Close()
	}
	return nil
}

func head(payload []byte) []byte {
	return fmt.Appendf(make([]byte, 0, maxHead+len(payload)), "%s %s %d %x\n", magic, version, len(payload), sha256.Sum256(payload))
}

// Read returns the payload of DIR/NAME and the file's time of change. It is an
// error if the payload has more than limit bytes, if it is not just what Write
// wrote, and if others may have written it. A link is not followed. An error names
// the file.
func Read(dir, name string, limit int64) (payload []byte, changed time.Time, err error) {
	if err := checkName(name); err != nil {
		return nil, time.Time{}, err
	}
	path := filepath.Join(dir, name)
	fail := func(err error) ([]byte, time.Time, error) {
		return nil, time.Time{}, fmt.Errorf("reading %s: %w", path, err)
	}
	f, err := open(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if !st.Mode().IsRegular() {
		return fail(fmt.Errorf("%w: it is no regular file", ErrUnsafe))
	}
	if err := private(st); err != nil {
		return fail(err)
	}
	if err := tight(dir); err != nil {
		return fail(err)
	}
	payload, err = Decode(f, limit)
	if err != nil {
		return fail(err)
	}
	return payload, st.ModTime(), nil
}

// Decode reads what Write writes, to the end of r.
func Decode(r io.Reader, limit int64) ([]byte, error) {
	in := bufio.NewReaderSize(r, maxHead)
	line, err := in.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull || err == io.EOF:
		return nil, fmt.Errorf("%w: it does not begin as one of outrigger's", ErrCorrupt)
	case err != nil:
		return nil, err
	}
	want, sum, err := parseHead(string(line))
	if err != nil {
		return nil, err
	}
	if want > limit {
		return nil, fmt.Errorf("%w: it holds %d bytes, allowed are %d", ErrCorrupt, want, limit)
	}
	// Grown by what is there, not by what the line says is there.
	var got bytes.Buffer
	n, err := io.Copy(&got, io.LimitReader(in, want+1))
	switch {
	case err != nil:
		return nil, err
	case n < want:
		return nil, fmt.Errorf("%w: it ends after %d of %d bytes", ErrCorrupt, n, want)
	case n > want:
		return nil, fmt.Errorf("%w: more than %d bytes follow its first line", ErrCorrupt, want)
	case sha256.Sum256(got.Bytes()) != sum:
		return nil, fmt.Errorf("%w: its content does not match its sum", ErrCorrupt)
	}
	return got.Bytes(), nil
}

// parseHead reads the first line. The version comes before all else: what follows
// it is another version's to say.
func parseHead(line string) (n int64, sum [sha256.Size]byte, err error) {
	rest, ok := strings.CutPrefix(line, magic+" ")
	if !ok {
		return 0, sum, fmt.Errorf("%w: it does not begin as one of outrigger's", ErrCorrupt)
	}
	v, rest, _ := strings.Cut(strings.TrimSuffix(rest, "\n"), " ")
	if v != version {
		return 0, sum, fmt.Errorf("%w: %.20q, this program knows %s", ErrVersion, v, version)
	}
	size, digits, _ := strings.Cut(rest, " ")
	n, err = strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 || size != strconv.FormatInt(n, 10) || len(digits) != hex.EncodedLen(len(sum)) {
		return 0, sum, fmt.Errorf("%w: its first line is not a length and a sum", ErrCorrupt)
	}
	if _, err := hex.Decode(sum[:], []byte(digits)); err != nil || strings.ToLower(digits) != digits {
		return 0, sum, fmt.Errorf("%w: its first line is not a length and a sum", ErrCorrupt)
	}
	return n, sum, nil
}

// Touch sets the time of change of DIR/NAME: what it says was so at this time too.
func Touch(dir, name string, at time.Time) error {
	if err := checkName(name); err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	if st, err := os.Lstat(path); err != nil {
		return err
	} else if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: %w: it is no regular file", path, ErrUnsafe)
	}
	return os.Chtimes(path, at, at)
}

// tempPrefix begins the names of files that are being written.
const tempPrefix = "."

// Sweep removes what processes that died while writing left in dir: files of
// CreateTemp's naming that were last changed before this time.
func Sweep(dir, suffix string, before time.Time) (removed int, err error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, e := range list {
		stem, number, ok := cutLast(e.Name(), ".")
		if !ok || !strings.HasPrefix(stem, tempPrefix) || !strings.HasSuffix(stem, suffix) || strings.Trim(number, "0123456789") != "" || !e.Type().IsRegular() {
			continue
		}
		st, err := e.Info()
		if err != nil || !st.ModTime().Before(before) {
			continue // gone meanwhile, or in the making
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	return removed, errors.Join(errs...)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
