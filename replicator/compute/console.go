package compute

import (
	"bytes"
	"fmt"
	"regexp"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/job"
)

// ProbeError says what a machine that did not come up had printed.
type ProbeError struct {
	Instance string
	Probe    job.Probe
	Waited   time.Duration
	Reason   string // what happened instead, such as "the machine powered itself off"
	Console  string // the end of the serial console, escape sequences removed
}

func (e *ProbeError) Error() string {
	want := "a line from its userspace"
	if e.Probe.SerialContains != "" {
		want = fmt.Sprintf("%q", e.Probe.SerialContains)
	}
	console := e.Console
	if console == "" {
		console = "nothing"
	}
	return fmt.Sprintf("machine %s: %s after %s without %s on its serial console; it printed: %s",
		e.Instance, e.Reason, e.Waited.Round(time.Millisecond), want, console)
}

// Is makes every ProbeError an ErrProbe.
func (e *ProbeError) Is(target error) bool { return target == ErrProbe }

// ProbeLine returns the first complete line of a serial console with which the probe holds.
//
// With no text given it is the first line that neither firmware, boot loader nor kernel prints: the sign that the guest's
// userspace runs. A guest whose loader or kernel prints something unknown to us would count as up too early; such a machine
// needs a text in its policy.
func ProbeLine(console []byte, probe job.Probe) (line string, ok bool) {
	for raw := range bytes.Lines(console) {
		if !bytes.HasSuffix(raw, []byte("\n")) {
			break // still being printed
		}
		s := printable(raw)
		if probe.SerialContains != "" {
			if bytes.Contains(s, []byte(probe.SerialContains)) {
				return string(s), true
			}
			continue
		}
		if len(s) > 0 && !early.Match(s) {
			return string(s), true
		}
	}
	return "", false
}

// early matches what a Linux machine prints before its userspace does: SeaBIOS, iPXE, OVMF, SYSLINUX, GRUB, the kernel's
// decompressor, and kernel messages, which carry a time stamp unless they continue a line.
var early = regexp.MustCompile(`^(\[ *\d+\.\d+\]|SeaBIOS|iPXE|Booting from|BdsDxe|SYSLINUX|EXTLINUX|ISOLINUX|GRUB|Welcome to GRUB|error: |Loading |Booting |boot:|Probing EDD|` +
	`Decompressing Linux|Parsing ELF|Performing relocations|No EFI|early console|Physical KASLR|Virtual KASLR|EFI stub|Press any key|UEFI Interactive|Machine UUID|\.*ready\.?$|\.+$)`)

// escape matches terminal escape sequences.
var escape = regexp.MustCompile("\x1b(\\[[0-9;?=]*[ -/]*[@-~]|[()][A-Za-z0-9]|[@-Z\\\\^_=>78c])")

// printable returns the line without escape sequences, control characters and surrounding space. What a carriage return
// overwrote counts as part of the line.
func printable(line []byte) []byte {
	line = escape.ReplaceAll(line, nil)
	line = bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r == '\ufffd' {
			return -1
		}
		return r
	}, line)
	return bytes.TrimSpace(line)
}

// ConsoleTail returns the last lines of a console as one line of text, at most n bytes, for an error message.
func ConsoleTail(console []byte, n int) string {
	if len(console) > 4*n {
		console = console[len(console)-4*n:]
	}
	var out []byte
	for raw := range bytes.Lines(console) {
		if s := printable(raw); len(s) > 0 {
			if len(out) > 0 {
				out = append(out, " | "...)
			}
			out = append(out, s...)
		}
	}
	if len(out) > n {
		out = out[len(out)-n:]
	}
	return string(bytes.ToValidUTF8(out, nil))
}
