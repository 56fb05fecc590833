package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// conversations are connections on which the same is asked again and again.
type conversations struct {
	conns    []net.Conn
	answered atomic.Int64
	mu       sync.Mutex
	failed   error
}

func dialAll(ctx context.Context, addr string, n int) (*conversations, error) {
	c := &conversations{}
	for range n {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			c.close()
			return nil, err
		}
		c.conns = append(c.conns, conn)
	}
	return c, nil
}

func (c *conversations) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

func (c *conversations) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// run asks at a rate, evenly spread over time and connections, until ctx ends.
func (c *conversations) run(ctx context.Context, rate int, request string) {
	var wg sync.WaitGroup
	defer wg.Wait()
	turns := make([]chan struct{}, len(c.conns))
	for i, conn := range c.conns {
		turns[i] = make(chan struct{}, 1)
		defer close(turns[i])
		wg.Go(func() {
			r := bufio.NewReader(conn)
			for range turns[i] {
				if err := c.ask(conn, r, request); err != nil {
					c.mu.Lock()
					c.failed = errors.Join(c.failed, err)
					c.mu.Unlock()
					return
				}
			}
		})
	}
	start := time.Now()
	for sent := 0; ; {
		for due := int(time.Since(start).Seconds() * float64(rate)); sent < due; sent++ {
			select {
			case turns[sent%len(turns)] <- struct{}{}:
			default: // the last answer is still out: a sidecar would wait for it too
			}
		}
		if pause(ctx, 500*time.Microsecond) != nil {
			return
		}
	}
}

func (c *conversations) ask(conn net.Conn, r *bufio.Reader, request string) error {
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second)) // reading says so
	if _, err := conn.Write([]byte(request)); err != nil {
		return err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", resp.Status)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	c.answered.Add(1)
	return nil
}
