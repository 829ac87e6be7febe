package compute

import (
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/job"
)

func TestProbeLine(t *testing.T) {
	for name, tc := range map[string]struct {
		console, contains string
		want              string
	}{
		"nothing printed yet":                     {"", "", ""},
		"only firmware and loader":                {"SeaBIOS (version 1.16)\r\n\r\nSYSLINUX 6.04 EDD Copyright\r\nLoading /boot/vmlinuz... ok\r\n", "", ""},
		"only kernel lines":                       {"[    0.000000] Linux version 6.1\r\n[    1.2] Run /init as init process\r\n", "", ""},
		"first line of userspace after kernel":    {"[    0.000000] Linux version 6.1\r\nstarting version 252\r\nlogin:\r\n", "", "starting version 252"},
		"quiet kernel":                            {"Loading /boot/vmlinuz... ok\r\nhello from init\n", "", "hello from init"},
		"a line still being printed":              {"[    0.1] x\r\nhel", "", ""},
		"escape sequences before and in the line": {"\x1b[2J\x1b[1;1H[    0.1] x\r\n\x1b[0;32m  OK  \x1b[0m Started foo\r\n", "", "OK   Started foo"},
		"clear screen alone is not a line":        {"\x1bc\x1b[?7l\x1b[2J\r\n", "", ""},
		"text that is asked for":                  {"[    0.1] x\r\nnot this\r\nREADY 5\r\n", "READY", "READY 5"},
		"text in a kernel line counts when asked": {"[    0.1] x READY\r\n", "READY", "[    0.1] x READY"},
		"text asked for is not there":             {"one\ntwo\n", "READY", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := ProbeLine([]byte(tc.console), job.Probe{SerialContains: tc.contains})
			if got != tc.want || ok != (tc.want != "") {
				t.Errorf("got %q, %v; want %q", got, ok, tc.want)
			}
		})
	}
}

func FuzzProbeLine(f *testing.F) {
	f.Add([]byte("[ 0.1] a\r\nb\n"), "b")
	f.Fuzz(func(t *testing.T, console []byte, contains string) {
		line, ok := ProbeLine(console, job.Probe{SerialContains: contains})
		if ok && contains != "" && !strings.Contains(line, contains) {
			t.Errorf("line %q does not contain %q", line, contains)
		}
		if !ok && line != "" {
			t.Errorf("line %q without ok", line)
		}
		// More output never takes a held probe back.
		if again, ok2 := ProbeLine(append(console[:len(console):len(console)], "x\n"...), job.Probe{SerialContains: contains}); ok && (!ok2 || again != line) {
			t.Errorf("%q became %q with more output", line, again)
		}
		if s := ConsoleTail(console, 100); len(s) > 100 {
			t.Errorf("tail of %d bytes", len(s))
		}
	})
}
