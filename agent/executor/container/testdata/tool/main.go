// Command tool is what test images have: it says where it is, and waits.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	for _, arg := range os.Args[1:] {
		what, rest, _ := strings.Cut(arg, "=")
		switch what {
		case "id":
			host, _ := os.Hostname()
			dir, _ := os.Getwd()
			fmt.Println("id", os.Getuid(), os.Getgid(), host, dir, os.Getpid())
		case "env":
			fmt.Println("env", rest, os.Getenv(rest))
		case "read":
			data, err := os.ReadFile(rest)
			fmt.Println("read", rest, strings.ReplaceAll(string(data), "\n", ";"), err)
		case "write":
			fmt.Println("write", rest, os.WriteFile(rest, []byte("x"), 0o644))
		case "stat":
			_, err := os.Lstat(rest)
			fmt.Println("stat", rest, err)
		case "mount":
			fmt.Println("mount", syscall.Mount("tmpfs", "/tmp", "tmpfs", 0, ""))
		case "unshare":
			fmt.Println("unshare", syscall.Unshare(syscall.CLONE_NEWUSER))
		case "eat":
			var all [][]byte
			for {
				b := make([]byte, 1<<20)
				for i := range b {
					b[i] = 1
				}
				all = append(all, b)
			}
		case "wait":
			term := make(chan os.Signal, 1)
			signal.Notify(term, syscall.SIGTERM)
			fmt.Println("waiting")
			select {
			case <-term:
				fmt.Println("told to end")
			case <-time.After(time.Hour):
			}
		case "fail":
			os.Exit(9)
		}
	}
}
