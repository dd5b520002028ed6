package dnsproxy

import (
	"crypto/sha1"
	"strings"
)

// label makes a label of any text, by the rules of RFC 1123 and of Mesos: lower
// case; letters, digits and hyphens stay, dots and underscores become hyphens,
// the rest is dropped; no hyphen at either end. Of what is too long the hyphens at
// the cut make room for what follows them. "" when nothing is left.
func label(text string) string {
	b := make([]byte, 0, maxLabel)
	for i := range len(text) {
		c := lower(text[i])
		switch {
		case c == '-' || c == '_' || c == '.':
			if len(b) == 0 || len(b) == maxLabel {
				continue
			}
			c = '-'
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			if len(b) == maxLabel {
				if b[maxLabel-1] != '-' {
					return string(b)
				}
				b = trimHyphens(b)
			}
		default:
			continue
		}
		b = append(b, c)
	}
	return string(trimHyphens(b))
}

func trimHyphens(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == '-' {
		b = b[:len(b)-1]
	}
	return b
}

// fragment makes labels of a text's parts between dots, as Mesos-DNS does with
// the names of tasks and frameworks. "" when nothing is left.
func fragment(text string) string {
	var labels []string
	for part := range strings.SplitSeq(text, ".") {
		if l := label(part); l != "" {
			labels = append(labels, l)
		}
	}
	return strings.Join(labels, ".")
}

// hashSize is the length of a suffix that keeps equal labels apart: 40 bits.
const hashSize = 8

// hashOf is a short text that stands for a long one.
func hashOf(text string) string {
	const alphabet = "abcdefghijkmnpqrstuwxyz13456789y"
	sum := sha1.Sum([]byte(text))
	b := make([]byte, hashSize)
	for i := range b {
		b[i] = alphabet[sum[i]&31]
	}
	return string(b)
}

// distinct is a label with a suffix that only the text has.
func distinct(label, text string) string {
	cut := trimHyphens([]byte(label[:min(len(label), maxLabel-1-hashSize)]))
	return string(cut) + "-" + hashOf(text)
}

// serviceLabel puts the underscore before a label; one that leaves no room for it
// is cut and told apart by a hash.
func serviceLabel(label string) string {
	if len(label) < maxLabel {
		return "_" + label
	}
	return "_" + distinct(label[:maxLabel-2-hashSize], label)
}
