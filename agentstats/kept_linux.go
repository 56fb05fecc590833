package agentstats

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// maxKept bounds the descriptors that stay open: far more files than a backend has
// figures, but not one for each process of a group of thousands.
const maxKept = 256

// kept is a file that stays open between samples. Opening and closing a file of /proc
// or of a cgroup costs two to seven times what reading it does.
type kept struct {
	fd   int
	used bool // since the last sweep
}

// reread returns the content of a file that is read at every sample, valid until the
// next read of any file. The descriptor stays open until a sweep finds it unused; it is
// opened anew where what it stood for is gone: a process answers ESRCH then, a cgroup
// ENODEV.
func (p *procDir) reread(path string) ([]byte, error) {
	k := p.kept[path]
	if k == nil {
		if len(p.kept) >= maxKept {
			return p.read(path)
		}
		fd, err := openFile(path)
		if err != nil {
			return nil, err
		}
		k = &kept{fd: fd}
		if p.kept == nil {
			p.kept = map[string]*kept{}
		}
		p.kept[path] = k
	} else if data, err := p.whole(k.fd); err == nil {
		k.used = true
		return data, nil
	} else if fd, openErr := openFile(path); openErr != nil {
		p.drop(path)
		return nil, openErr
	} else {
		_ = unix.Close(k.fd)
		k.fd = fd
	}
	k.used = true
	data, err := p.whole(k.fd)
	if err != nil {
		p.drop(path)
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return data, nil
}

func (p *procDir) drop(path string) {
	if k := p.kept[path]; k != nil {
		_ = unix.Close(k.fd)
		delete(p.kept, path)
	}
}

// sweep closes what was not read since the last sweep. An open net/dev keeps its
// network namespace alive, and an open cgroup file its removed group's memory.
func (p *procDir) sweep() {
	for path, k := range p.kept {
		if !k.used {
			p.drop(path)
		}
		k.used = false
	}
}

// close closes all of them.
func (p *procDir) close() {
	for path := range p.kept {
		p.drop(path)
	}
}

// openFile goes below os.File, which would register each descriptor with the poller
// and a cleanup. A FIFO in the place of a file must not hold the agent up.
func openFile(path string) (int, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0) })
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// whole reads a file from its beginning.
func (p *procDir) whole(fd int) ([]byte, error) {
	b := p.buf[:0]
	for {
		if cap(b)-len(b) < 4096 {
			b = append(make([]byte, 0, 2*cap(b)+8192), b...)
			p.buf = b
		}
		n, err := unix.Pread(fd, b[len(b):cap(b)], int64(len(b)))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return b, nil
		}
		b = b[:len(b)+n]
	}
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
