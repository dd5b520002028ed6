package container

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"
)

// bigUDP sends one datagram of a size, which may not be fragmented, and gives
// the answer.
func bigUDP(to string, size int) (string, error) {
	c, err := net.Dial("udp", to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b := make([]byte, 200)
	for range 20 {
		if _, err = c.Write(bytes.Repeat([]byte{'x'}, size)); err != nil {
			return "", err
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		var n int
		if n, err = c.Read(b); err == nil {
			return strings.TrimSpace(string(b[:n])), nil
		}
	}
	return "", err
}

// talk sends from one port until stop, and passes on what comes back.
func talk(t *testing.T, to string, answers chan<- string, stop <-chan struct{}) {
	c, err := net.Dial("udp", to)
	if err != nil {
		t.Error(err)
		return
	}
	go func() {
		for {
			select {
			case <-stop:
				c.Close()
				return
			case <-time.After(20 * time.Millisecond):
				_, _ = c.Write([]byte("who am I"))
			}
		}
	}()
	go func() {
		b := make([]byte, 200)
		for {
			n, err := c.Read(b)
			if err != nil {
				if strings.Contains(err.Error(), "closed") {
					return
				}
				continue
			}
			select {
			case answers <- strings.TrimSpace(string(b[:n])):
			default:
			}
		}
	}()
}

func wait(t *testing.T, answers <-chan string, want string) {
	t.Helper()
	select {
	case got := <-answers:
		if got != want {
			t.Errorf("the server sees %s, want %s", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no answer")
	}
}
