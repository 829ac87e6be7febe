// Guestd is the only service of the scenario guest: it checks the record file left by the machine's last life, says on the
// console what it found, and then appends records for ever, each on disk before it is announced.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/record"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: guestd RECORD-FILE INTERVAL")
		os.Exit(2)
	}
	say("GUESTD-FAILED " + run(os.Args[1], os.Args[2]).Error())
	os.Exit(1)
}

// say writes a line to the serial console and to the screen, in one write each so that kernel messages do not split it.
func say(line string) {
	_, _ = io.WriteString(os.Stdout, line+"\r\n")
	if screen != nil {
		_, _ = io.WriteString(screen, line+"\r\n")
	}
}

var screen = openScreen()

// openScreen returns the first virtual terminal, nil on a machine without one or when it is the console already.
func openScreen() *os.File {
	f, err := os.OpenFile("/dev/tty1", os.O_WRONLY, 0)
	if err != nil {
		return nil
	}
	return f
}

// run goes on until something fails.
func run(path, interval string) error {
	every, err := time.ParseDuration(interval)
	if err != nil {
		return err
	}
	uuid := "unknown"
	if b, err := os.ReadFile("/sys/class/dmi/id/product_uuid"); err == nil {
		uuid = strings.ToLower(strings.TrimSpace(string(b)))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	found, err := record.Verify(f)
	broken, isBroken := errors.AsType[*record.BrokenError](err)
	if err != nil && !isBroken {
		return err
	}
	say(fmt.Sprintf("LIFEBOAT-GUEST up uuid=%s records=%d last=%s uptime=%s", uuid, found.Count, orNone(found.Last.Sum), uptime()))
	if isBroken {
		// Going on would write over the evidence.
		say(fmt.Sprintf("RECORDS-BROKEN at %d: %s", broken.At, broken.Why))
		select {}
	}
	say(fmt.Sprintf("RECORDS-OK %d", found.Count))
	size, err := f.Seek(-found.Torn, io.SeekEnd)
	if err != nil {
		return err
	}
	if found.Torn > 0 {
		if err := f.Truncate(size); err != nil {
			return err
		}
	}
	short := uuid[:min(8, len(uuid))]
	last := found.Last
	tick := time.NewTicker(every)
	for ; ; <-tick.C {
		last = record.Next(last, time.Now(), short)
		if _, err := f.WriteString(last.Line()); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		say(last.Console())
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func uptime() string {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return "unknown"
	}
	up, _, _ := bytes.Cut(b, []byte(" "))
	return string(up)
}
