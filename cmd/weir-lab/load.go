package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// load is what to send.
type load struct {
	url      string
	rate     int // requests per second
	duration time.Duration
	retries  int
	timeout  time.Duration
}

// result counts what came back.
type result struct {
	OK     int `json:"ok"`
	Failed int `json:"failed"`
	// Retried counts the attempts that failed and were tried again.
	Retried int `json:"retried"`
	// Answers by the first word of the body, which names the server.
	Answers map[string]int `json:"answers"`
	// Errors of attempts, by what was wrong.
	Errors map[string]int `json:"errors"`
}

func loadCommand() *cobra.Command {
	var l load
	cmd := &cobra.Command{
		Use:   "load URL",
		Short: "Send HTTP requests at a steady rate and count who answers",
		Long: `Send HTTP requests at a steady rate, each on a connection of its own, and count
the answers by their first word. It fails when a request failed after its
retries.`,
		Example: "  weir-lab exec client -- weir-lab load http://web.shop.vip.weir.internal --rate 200 --duration 5s",
		Args:    arguments(1, 1, "takes a URL"),
	}
	format := output(cmd)
	cmd.Flags().IntVar(&l.rate, "rate", 200, "requests per second")
	cmd.Flags().DurationVar(&l.duration, "duration", 5*time.Second, "how long to send")
	cmd.Flags().IntVar(&l.retries, "retry", 0, "how often a failed request is tried again")
	cmd.Flags().DurationVar(&l.timeout, "timeout", time.Second, "how long one attempt may take")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		l.url = args[0]
		if l.rate < 1 || l.rate > 100000 || l.duration <= 0 || l.retries < 0 || l.timeout <= 0 {
			return fmt.Errorf("%w: --rate is from 1 to 100000, --duration and --timeout are above 0, --retry is 0 or more", errUsage)
		}
		r := l.run(cmd.Context())
		if err := print(cmd, *format, r, r.table); err != nil {
			return err
		}
		if r.Failed > 0 {
			return fmt.Errorf("%d of %d requests failed", r.Failed, r.OK+r.Failed)
		}
		return nil
	}
	return cmd
}

func (r result) table(w io.Writer) {
	fmt.Fprintf(w, "ok\t%d\nfailed\t%d\nretried\t%d\n", r.OK, r.Failed, r.Retried)
	for _, name := range slices.Sorted(maps.Keys(r.Answers)) {
		fmt.Fprintf(w, "answers of %s\t%d\n", name, r.Answers[name])
	}
	for _, what := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(w, "error: %s\t%d\n", what, r.Errors[what])
	}
}

// run sends until the duration is over or ctx ends. A request that is due is
// sent whether or not earlier ones have been answered.
func (l load) run(ctx context.Context) result {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: l.timeout}
	r := result{Answers: map[string]int{}, Errors: map[string]int{}}
	var mu sync.Mutex // guards r
	var group errgroup.Group
	begin := time.Now()
	for i := range int(l.duration.Seconds() * float64(l.rate)) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(l.rate)))):
		}
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			name, failures := l.request(ctx, client)
			mu.Lock()
			defer mu.Unlock()
			for _, err := range failures {
				r.Errors[reason(err)]++
			}
			r.Retried += min(len(failures), l.retries)
			if len(failures) > l.retries {
				r.Failed++
			} else {
				r.OK++
				r.Answers[name]++
			}
			return nil
		})
	}
	_ = group.Wait() // no member returns an error
	return r
}

// request makes one request with its retries, and returns the first word of
// the answer and the failures before it.
func (l load) request(ctx context.Context, client *http.Client) (string, []error) {
	var failures []error
	for range l.retries + 1 {
		name, err := attempt(ctx, client, l.url)
		if err == nil {
			return name, failures
		}
		failures = append(failures, err)
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return "", failures
}

func attempt(ctx context.Context, client *http.Client, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if response.StatusCode >= 300 {
		return "", fmt.Errorf("status: %s", response.Status)
	}
	name, _, _ := strings.Cut(strings.TrimSpace(string(body)), " ")
	return name, nil
}

// reason is the last part of an error, without addresses and ports, which
// would make each one of a kind.
func reason(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return text
}
