package marathon

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// selector is a parsed label selector: all of its parts must hold.
type selector []requirement

// requirement on one label.
type requirement struct {
	key    string
	not    bool
	values []string // nil: that the label is there
}

var (
	setPart   = regexp.MustCompile(`^([^\s!=,()]+)\s+(in|notin)\s*\(([^()]*)\)$`)
	equalPart = regexp.MustCompile(`^([^\s!=,()]+)\s*(==|!=|=)\s*([^\s!=,()]*)$`)
	existPart = regexp.MustCompile(`^(!?)\s*([^\s!=,()]+)$`)
)

// parseSelector reads a==b, a!=b, a in (x, y), a notin (x, y) and a, with
// commas between.
func parseSelector(text string) (selector, error) {
	var s selector
	for _, part := range splitParts(text) {
		part = strings.TrimSpace(part)
		var one requirement
		if m := setPart.FindStringSubmatch(part); m != nil {
			one = requirement{key: m[1], not: m[2] == "notin", values: []string{}}
			for v := range strings.SplitSeq(m[3], ",") {
				one.values = append(one.values, strings.TrimSpace(v))
			}
		} else if m := equalPart.FindStringSubmatch(part); m != nil {
			one = requirement{key: m[1], not: m[2] == "!=", values: []string{m[3]}}
		} else if m := existPart.FindStringSubmatch(part); m != nil {
			one = requirement{key: m[2], not: m[1] == "!"}
		} else {
			return nil, refuse(http.StatusBadRequest, "label: %v", fmt.Errorf("%q is none of a==b, a!=b, a in (x,y), a notin (x,y) and a", part))
		}
		s = append(s, one)
	}
	return s, nil
}

// splitParts at commas outside of brackets.
func splitParts(text string) []string {
	var parts []string
	depth, from := 0, 0
	for i, c := range text {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth <= 0:
			parts, from = append(parts, text[from:i]), i+1
		}
	}
	return append(parts, text[from:])
}

// matches tells whether labels are as selected. As in Marathon, a label that is
// not there is not equal to any value.
func (s selector) matches(labels map[string]string) bool {
	for _, one := range s {
		value, there := labels[one.key]
		holds := there
		if one.values != nil {
			holds = there && slices.Contains(one.values, value)
		}
		if holds == one.not {
			return false
		}
	}
	return true
}
