package bench

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/program"
)

// The owner is a process that holds a balancer as an agent does, so that it can
// be killed at any moment. It is the calling binary once more.

const ownerVariable = "WEIR_BENCH_OWNER"

// ownerJob is the first message to an owner: what program.Options say but for
// the log, and the first table.
type ownerJob struct {
	PinDir, Cgroup string
	VerifyEvery    time.Duration
	Sizes, Limits  program.Sizes
	Table          dataplane.Table
}

func (j ownerJob) options() program.Options {
	return program.Options{
		PinDir: j.PinDir, Cgroup: j.Cgroup, VerifyEvery: j.VerifyEvery, Sizes: j.Sizes, Limits: j.Limits,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

// ownerChange puts the service in the place of another of the table.
type ownerChange struct {
	Index   int
	Service *dataplane.Service
}

// OwnerMain does an owner's work and exits, if this process was started for it;
// it returns at once otherwise. A program that calls Soak calls it first.
func OwnerMain() {
	if os.Getenv(ownerVariable) == "" {
		return
	}
	if err := ownBalancer(os.Stdin, os.Stdout); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintf(os.Stderr, "benchmark owner: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func ownBalancer(in io.Reader, out io.Writer) error {
	decoder, encoder := gob.NewDecoder(in), gob.NewEncoder(out)
	var job ownerJob
	if err := decoder.Decode(&job); err != nil {
		return err
	}
	b, err := program.New(job.options())
	if err != nil {
		return errors.Join(encoder.Encode(err.Error()), err)
	}
	defer b.Close()
	t := job.Table
	for {
		answer := ""
		if _, err := b.Set(context.Background(), t); err != nil {
			answer = err.Error()
		}
		if err := encoder.Encode(answer); err != nil {
			return err
		}
		var change ownerChange
		if err := decoder.Decode(&change); err != nil {
			return err
		}
		next := dataplane.Table{Ranges: t.Ranges, Services: slices.Clone(t.Services)}
		next.Services[change.Index] = change.Service
		t = next
	}
}

// owner is the process, seen from its parent.
type owner struct {
	command *exec.Cmd
	in      io.Closer
	encoder *gob.Encoder
	decoder *gob.Decoder
}

// startOwner starts one and waits until its first Set is done.
func startOwner(job ownerJob) (*owner, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), ownerVariable+"=1")
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("start owner: %w", err)
	}
	o := &owner{command: c, in: in, encoder: gob.NewEncoder(in), decoder: gob.NewDecoder(out)}
	if err = o.encoder.Encode(job); err == nil {
		err = o.done()
	}
	if err != nil {
		o.kill()
		return nil, fmt.Errorf("start owner: %w", err)
	}
	return o, nil
}

// begin asks for a change and does not wait for it.
func (o *owner) begin(c ownerChange) error { return o.encoder.Encode(c) }

// done waits for the Set that was asked for.
func (o *owner) done() error {
	var answer string
	if err := o.decoder.Decode(&answer); err != nil {
		return fmt.Errorf("answer of the owner: %w", err)
	}
	if answer != "" {
		return errors.New(answer)
	}
	return nil
}

// stop lets the owner close its balancer.
func (o *owner) stop() error {
	o.in.Close()
	if err := o.command.Wait(); err != nil {
		return fmt.Errorf("stop owner: %w", err)
	}
	return nil
}

// kill ends the owner wherever it is.
func (o *owner) kill() {
	_ = o.command.Process.Kill()
	_ = o.command.Wait()
}
