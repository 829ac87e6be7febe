// Command bundle writes a split OpenAPI document as one JSON file: bundle <root.yaml> <out.json>.
package main

import (
	"fmt"
	"os"

	"github.com/lifeboat-dr/lifeboat/openapi/bundle"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want the root document and the file to write")
	}
	doc, err := bundle.Load(args[0])
	if err != nil {
		return err
	}
	out, err := bundle.Marshal(doc)
	if err != nil {
		return err
	}
	return os.WriteFile(args[1], out, 0o644)
}
