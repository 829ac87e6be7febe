// Command mkguest builds the small bootable Debian guest of the demo as a disk image, for trying Lifeboat by hand.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: mkguest IMAGE")
		os.Exit(2)
	}
	if err := guest.Build(context.Background(), os.Args[1], guest.Spec{}); err != nil {
		fmt.Fprintln(os.Stderr, "mkguest:", err)
		os.Exit(1)
	}
}
