package container

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproject/weir/agent/executor/shim"
)

// findUser finds a user in an image's passwd and group, as user[:group] by name
// or number, and where it is at home. Empty is root. A number need not be known.
func findUser(layers []string, name string) (shim.User, string, error) {
	passwd, group := table(layers, "etc/passwd"), table(layers, "etc/group")
	first, second, grouped := strings.Cut(name, ":")
	if first == "" {
		first = "0"
	}
	who, home := shim.User{}, "/"
	number, err := strconv.Atoi(first)
	known := false
	for _, f := range passwd {
		if len(f) < 6 || f[0] != first && (err != nil || f[2] != first) {
			continue
		}
		who.UID, _ = strconv.Atoi(f[2])
		who.GID, _ = strconv.Atoi(f[3])
		first, home, known = f[0], f[5], true
		break
	}
	if !known {
		if err != nil {
			return who, "", fmt.Errorf("find user %s: the image has none of this name", first)
		}
		who.UID = number
		if number == 0 {
			home = "/root"
		}
	}
	if grouped {
		who.GID, err = findGroup(group, second)
		return who, home, err
	}
	for _, f := range group {
		if len(f) > 3 && slices.Contains(strings.Split(f[3], ","), first) {
			if id, err := strconv.Atoi(f[2]); err == nil {
				who.Groups = append(who.Groups, id)
			}
		}
	}
	return who, home, nil
}

func findGroup(group [][]string, name string) (int, error) {
	for _, f := range group {
		if len(f) > 2 && f[0] == name {
			return strconv.Atoi(f[2])
		}
	}
	id, err := strconv.Atoi(name)
	if err != nil {
		return 0, fmt.Errorf("find group %s: the image has none of this name", name)
	}
	return id, nil
}

// table reads a file of lines of fields with colons between; one that is not
// there is empty.
func table(layers []string, name string) (lines [][]string) {
	data, err := readIn(layers, name)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		lines = append(lines, strings.Split(strings.TrimSpace(line), ":"))
	}
	return lines
}
