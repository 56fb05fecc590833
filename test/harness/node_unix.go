//go:build unix

package harness

import "syscall"

// Freeze stops the agent with SIGSTOP: its sockets take connections and bytes,
// and nothing answers. Thaw lets it go on.
func (n *Node) Freeze() error { return n.proc.Signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (n *Node) Thaw() error { return n.proc.Signal(syscall.SIGCONT) }
