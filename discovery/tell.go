package discovery

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// What a keeper has to say, for the log.

// maxLines bounds the lines of one kind that one answer can put into the log.
const maxLines = 10

func (k *keeper) tellFirst(n int) {
	if n > 0 {
		k.log.Info("service found", "instances", n, "index", k.index)
		return
	}
	k.log.Warn(k.from+" lists no instance of this service: is the name right, and may we see it?", "check", k.hint)
}

func (k *keeper) tellChange(d delta, n int) {
	if d.Added+d.Removed > 0 {
		k.log.Info("instances changed", "instances", n, "added", d.Added, "removed", d.Removed, "changed", d.Changed)
	} else {
		k.log.Debug("instances changed", "instances", n, "changed", d.Changed)
	}
}

// tellDoubt says once of each kind of doubt that the set is kept for it.
func (k *keeper) tellDoubt(doubt string) {
	if !k.toldBefore(doubt) {
		k.log.Warn("not believing "+k.from+"'s answer: keeping the last good set", "reason", reason(doubt), "instances", len(k.inUse))
	}
}

// toldBefore also makes it so: doubts may alternate with every read.
func (k *keeper) toldBefore(doubt string) bool {
	if slices.Contains(k.told, doubt) {
		return true
	}
	k.told = append(k.told, doubt)
	return false
}

// tellEnd says that there is no doubt any more, if there was one.
func (k *keeper) tellEnd(why string, n int) {
	if len(k.told) > 0 {
		was := reason(k.told[len(k.told)-1])
		k.log.Info("believing "+k.from+"'s answer now", "was", was, "because", cmp.Or(why, "it is plausible"), "instances", n)
	}
}

// wayOut is how they leave who are meant to.
const wayOut = "stop the processes, or set their weight to 0 or put them into maintenance before they are taken out, or lower empty_hold"

// tellLoss is tellDoubt for those about what is missing.
func (k *keeper) tellLoss(state State, doubt string) {
	l := k.loss
	switch {
	case state != Kept:
		k.tellDoubt(doubt)
	case k.toldBefore(doubt):
	case doubt == doubtAlive:
		k.log.Warn(k.from+" lists nothing, but old endpoints answer: keeping them",
			"instances", len(l.lost), "answering", l.answering(), "check", k.hint, "if_meant", wayOut)
	case doubt == doubtFiltered:
		k.log.Warn("ACLs hide instances: keeping the missing that still answer",
			"listed", len(l.listed), "missing", len(l.lost), "answering", l.answering(), "check", "the token's rights", "if_meant", wayOut)
	default:
		k.log.Warn(k.from+" lists too few at once: keeping the missing that still answer",
			"listed", len(l.listed), "missing", len(l.lost), "answering", l.answering(), "check", k.hint, "if_meant", wayOut)
	}
}

// tellLate says once that the answers are believed but old.
func (k *keeper) tellLate(age time.Duration) {
	if !k.toldBefore(doubtLagging) {
		k.log.Warn("the agent's cache has lost contact with the servers: its answers are old", "age", age)
	}
}

func (k *keeper) tellGone(gone []Instance, text string) {
	for n, i := range gone {
		if n == maxLines {
			k.log.Info("more of them: "+text, "count", len(gone)-n)
			break
		}
		k.log.Info(text, "id", i.ID)
	}
}

// tellOdd logs the oddities that the answer before did not have.
func (k *keeper) tellOdd(odd []oddity) {
	lines := 0
	known := make(map[oddity]bool, len(odd))
	for _, o := range odd {
		if known[o] {
			continue
		}
		known[o] = true
		if k.odd[o] {
			continue
		}
		if lines++; lines > maxLines {
			continue
		}
		msg, id := "instance in "+k.from+" corrected", o.ID
		if o.Dropped {
			msg = "instance in " + k.from + " left out"
		}
		if !plainText(id, 200) {
			id = fmt.Sprintf("%.200q", id)
		}
		k.log.Warn(msg, "id", id, "reason", o.Text)
	}
	if lines > maxLines {
		k.log.Warn("more instances in "+k.from+" left out or corrected", "count", lines-maxLines)
	}
	k.odd = known
}
