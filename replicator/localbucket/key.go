package localbucket

import (
	"fmt"
	"strings"
)

// tempName is the directory of files that are not objects yet. No key is stored under a name that starts with a dot.
const tempName = ".tmp"

// maxElement is the longest name the usual filesystems take, in bytes.
const maxElement = 255

// escapeKey turns a key into a relative path. Elements between slashes become directories and a file; what a name cannot
// hold or must not mean is written %XX, and an empty element as a lone %. unescapeElement reverses it.
func escapeKey(key string) (string, error) {
	if key == "" {
		return "", fmt.Errorf("%w: it is empty", errKey)
	}
	elements := strings.Split(key, "/")
	for i, e := range elements {
		e = escapeElement(e)
		if len(e) > maxElement {
			return "", fmt.Errorf("%w: an element has %d bytes after escaping, %d are possible", errKey, len(e), maxElement)
		}
		elements[i] = e
	}
	return strings.Join(elements, "/"), nil
}

func escapeElement(e string) string {
	if e == "" {
		return "%"
	}
	var b strings.Builder
	for i := range len(e) {
		c := e[i]
		if c < 0x20 || c == 0x7f || c == '%' || c == '.' && i == 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescapeElement returns the key's element that a directory entry stands for; ok is false for a name that escapeElement
// never makes, which is not ours.
func unescapeElement(name string) (element string, ok bool) {
	if name == "%" {
		return "", true
	}
	if !strings.ContainsRune(name, '%') {
		return name, name != "" && name == escapeElement(name)
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b.WriteByte(name[i])
			continue
		}
		if i+2 >= len(name) {
			return "", false
		}
		var c byte
		if _, err := fmt.Sscanf(name[i+1:i+3], "%02X", &c); err != nil {
			return "", false
		}
		b.WriteByte(c)
		i += 2
	}
	element = b.String()
	return element, escapeElement(element) == name
}
