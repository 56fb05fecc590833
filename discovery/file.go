package discovery

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// FileQuery is where the instances of a service are listed; parseFile has the
// format.
type FileQuery struct {
	Service string // for logs, and Instance.Service
	Path    string // absolute
	// Poll is the distance of two looks at the file, 100 ms to 1 h.
	Poll time.Duration
}

// DefaultFileQuery returns the query of a service that names nothing else.
func DefaultFileQuery(service, path string) FileQuery {
	return FileQuery{
		Service: service, Path: path,
		// The cost of a look is one stat. Being told by the kernel instead
		// (inotify) works neither for ConfigMaps of Kubernetes, which are swapped
		// behind a link, nor over NFS.
		Poll: time.Second,
	}
}

// Validate reports every part that cannot be watched.
func (q FileQuery) Validate() error {
	var errs []error
	if q.Service == "" || !plainText(q.Service, 253) {
		errs = append(errs, fmt.Errorf("service %.80q: allowed are 1 to 253 printable characters", q.Service))
	}
	if !filepath.IsAbs(q.Path) || !plainText(q.Path, 4096) {
		errs = append(errs, fmt.Errorf("path is %.80q, which is no absolute path", q.Path))
	}
	if q.Poll < 100*time.Millisecond || q.Poll > time.Hour {
		errs = append(errs, fmt.Errorf("poll is %s, allowed are 100ms to 1h", q.Poll))
	}
	return errors.Join(errs...)
}

// File follows a file that lists a service's instances. It is made by NewFile and
// implements Source. What is missing, cannot be read or is not right is an error,
// which keeps the set; what is there is judged like an answer of Consul, so that a
// file that suddenly lists nothing does not stop what runs.
type File struct {
	query FileQuery
	keep  *keeper
	wrong error // of query or configuration; Watch returns it

	watching atomic.Bool
	file     *fileReader
	pending  chan looked // of a look that takes too long
	told     string      // the error that was logged last, Watch's alone
}

var _ Source = (*File)(nil)

// NewFile returns a source of the instances in a file. Of cfg it uses what says
// which losses are believed. A wrong query or configuration shows when Watch is
// called.
func NewFile(query FileQuery, cfg Config, env Env) *File {
	f := &File{
		query: query,
		keep:  newKeeper("the file", "the file "+query.Path+" and what writes it", query.Service, cfg, env),
		file:  &fileReader{path: query.Path, service: query.Service},
	}
	if err := errors.Join(query.Validate(), cfg.Validate()); err != nil {
		f.wrong = fmt.Errorf("discovery of service %q: %w", query.Service, err)
	}
	return f
}

// Persist is Consul.Persist: it is for a start while the file is missing or wrong.
func (f *File) Persist(store *Store, block string) {
	f.keep.keepOn(store, block, f.query.Service, f.query.fingerprint())
}

func (q FileQuery) fingerprint() string { return sumOf("file", q.Service, q.Path) }

// Status implements Source. Index counts the contents that the file had.
func (f *File) Status() Status { return f.keep.status("file") }

// Watch implements Source.
func (f *File) Watch(ctx context.Context, apply func([]Instance)) error {
	if f.wrong != nil {
		return f.wrong
	}
	if !f.watching.CompareAndSwap(false, true) {
		return fmt.Errorf("discovery of service %q: it is being watched already", f.query.Service)
	}
	defer f.watching.Store(false)
	f.keep.begin(apply)
	defer f.keep.end()
	defer f.keep.persist(ctx)()
	var again time.Time // when an answer that is doubted is due once more
	for {
		l := f.look(ctx)
		now := f.keep.env.Now()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case l.err != nil:
			f.failed(l.err)
			again = time.Time{}
		case l.changed || !now.Before(again):
			f.told = ""
			p := f.keep.take(ctx, reading{set: l.set, index: l.index, circumstances: circumstances{
				Consistent: true, KnownLeader: true, // there is but one
			}})
			if again = now; p.verify {
				again = now.Add(p.delay)
			}
		}
		if err := sleep(ctx, f.query.Poll); err != nil {
			return err
		}
	}
}

// failed keeps the set. Who mends a file wants to see the next mistake too.
func (f *File) failed(err error) {
	text := err.Error()
	if f.told != "" && f.told != text {
		f.keep.log.Warn("the file still cannot be used", "error", presentable(err, ""))
	}
	f.told = text
	f.keep.failed(err, false)
}

// lookLimit is how long a look may take, for a disk of the network may hang.
const lookLimit = 10 * time.Second

// looked is what a look at the file found.
type looked struct {
	set     []Instance
	index   uint64
	changed bool // since the look before
	err     error
}

// look looks at the file. A look that takes too long is an error; the next one
// waits for it.
func (f *File) look(ctx context.Context) looked {
	if f.pending == nil {
		f.pending = make(chan looked, 1)
		go func() { f.pending <- f.file.look(f.keep.env.Now()) }()
	}
	limit := time.NewTimer(lookLimit)
	defer limit.Stop()
	select {
	case l := <-f.pending:
		f.pending = nil
		return l
	case <-ctx.Done():
		return looked{err: ctx.Err()}
	case <-limit.C:
		return looked{err: fmt.Errorf("%s: reading it takes longer than %s", f.query.Path, lookLimit)}
	}
}

// racy is how old a file's time of change has to be for the same time to mean the
// same content: some file systems count in steps of 2 s.
const racy = 2 * time.Second

// fileReader reads a file again when it has changed.
type fileReader struct {
	path, service string
	stat          os.FileInfo // of the content that was read last; nil: none was
	sum           [sha256.Size]byte
	last          looked
	reads         int // of the content
}

// look returns what the file holds. Links are followed, at each look anew.
func (r *fileReader) look(now time.Time) looked {
	st, err := os.Stat(r.path)
	if err != nil {
		return r.fail(err)
	}
	if !st.Mode().IsRegular() {
		return r.fail(fmt.Errorf("%s is no regular file", r.path))
	}
	if r.stat != nil && unchanged(r.stat, st) {
		r.last.changed = false
		return r.last
	}
	text, st, err := r.content()
	if err != nil {
		return r.fail(err)
	}
	if r.stat = st; !st.ModTime().Before(now.Add(-racy)) {
		r.stat = nil // it may change once more within the same step
	}
	if sum := sha256.Sum256(text); r.last.index == 0 || sum != r.sum {
		r.sum = sum
		set, err := parseFile(r.service, text)
		if err != nil {
			err = fmt.Errorf("%s:%w", r.path, err) // as FILE:LINE:COLUMN
		}
		r.last = looked{set: set, index: r.last.index + 1, err: err}
		r.last.changed = true
		return r.last
	}
	r.last.changed = false
	return r.last
}

// fail forgets the content: the next one that is read counts as changed.
func (r *fileReader) fail(err error) looked {
	r.stat, r.sum = nil, [sha256.Size]byte{}
	return looked{err: err}
}

func unchanged(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// content reads the whole file.
func (r *fileReader) content() ([]byte, os.FileInfo, error) {
	r.reads++
	// A pipe that takes its place just now does not hold us up.
	f, err := os.OpenFile(r.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, nil, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !unchanged(before, after) {
		return nil, nil, fmt.Errorf("%s changed while it was read", r.path)
	}
	return text, after, nil
}
