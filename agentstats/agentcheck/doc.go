// Package agentcheck answers HAProxy's agent-check, so that a HAProxy in front of a
// backend is steered by the same agent that the sidecars ask (HAProxy's configuration
// manual, section 5.2, "agent-check").
//
// HAProxy opens a TCP connection every agent-inter, reads one line and closes. Words
// of the line set the server's weight, its administrative and its operating state;
// what a line does not name stays as it was, and HAProxy never tells the agent what
// that is. So every answer is the full state, and undoes whatever an earlier one, of
// this agent or of one before it, may have left. Usually it is
//
//	up 73%
//
// and "down 73% # nobody listens on the backend's port" while nobody does. The choice
// of the words, each tried with HAProxy 2.6 (the tests of test/e2e hold it):
//
//   - The percentage is of the weight that the server line names, in whole numbers,
//     rounded down: without a weight, which means 1, all below 100 % is 0, and takes no
//     traffic. Server lines need weight 100. The balance algorithm has to be a dynamic
//     one: roundrobin, leastconn, random, or a consistent hash.
//   - "up" takes back "down" and nothing else: a server whose own check fails stays
//     down. It is said always, as "down" outlives the agent that said it. HAProxy
//     2.2.0 to 2.2.10, and 2.3 of those days, let it override a failed check
//     (haproxy issue 1176): there, set Health to false.
//   - "ready" is not said: with it, a server that an operator has put into maintenance
//     or drains would be back with the next answer. Nor are then "drain" and "maint",
//     which only "ready" takes back. To drain is to say 0%, which like them keeps new
//     clients away and lets persistent ones finish, and which ends with the next
//     percentage. Admin brings the words for those who want to see DRAIN in HAProxy's
//     statistics.
//   - No figure alone takes a server out. An agent does not know how the others are
//     off, and HAProxy with none left answers 503.
//
// An agent that cannot be reached changes nothing in HAProxy: its last words stay.
//
// The protocol has neither encryption nor a password. Lines say nothing that needs
// one, nothing that a peer sends is looked at, and only the configured address is
// listened on.
//
// HAProxy 2.6 holds back the last packet of its handshake, which makes each check take
// 200 ms, and fail with an agent-inter as short; with any agent-send it is 1 ms.
package agentcheck
