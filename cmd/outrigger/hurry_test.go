package main

import (
	"context"
	"testing"
)

// The second signal is for the command that takes it, and else ends the program.
func TestHurry(t *testing.T) {
	h := newHurry()
	ctx := context.WithValue(t.Context(), hurryKey{}, h)
	if h.up() {
		t.Error("nobody took the second signal, yet it does not end the program")
	}
	h = newHurry()
	ctx = context.WithValue(ctx, hurryKey{}, h)
	got := hurried(ctx)
	if got.Err() != nil {
		t.Error("it hurries before the signal")
	}
	if !h.up() || got.Err() == nil {
		t.Error("the command does not hear the second signal")
	}
	if hurried(t.Context()).Err() != nil {
		t.Error("without signals there is no hurry")
	}
}
