package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
)

const screenFile = "screen.ppm"

// Screenshot implements compute.Driver.
func (d *Driver) Screenshot(ctx context.Context, id string, w io.Writer) error {
	i, err := d.instance(id)
	if err != nil {
		return err
	}
	if _, err := i.load(); err != nil {
		return err
	}
	if p, err := i.power(ctx); err != nil || p == off {
		return errors.Join(err, fmt.Errorf("screenshot of instance %s: %w", id, compute.ErrNotRunning))
	}
	// The monitor serves one connection at a time, so no two dumps write the file at once; the name is removed while it is
	// held.
	m, err := dialMonitor(ctx, i.dir, qmpSocket)
	if err != nil {
		return fmt.Errorf("screenshot of instance %s: %w", id, err)
	}
	defer m.close()
	path := filepath.Join(i.dir, screenFile)
	defer func() { _ = os.Remove(path) }()
	// PPM is written by every QEMU; PNG only by some builds.
	if err := m.do("screendump", map[string]any{"filename": screenFile}, nil); err != nil {
		return fmt.Errorf("screenshot of instance %s: %w", id, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("screenshot of instance %s: %w", id, err)
	}
	defer func() { _ = f.Close() }()
	img, err := decodePPM(f)
	if err != nil {
		return fmt.Errorf("screenshot of instance %s: %w", id, err)
	}
	if err := png.Encode(w, img); err != nil {
		return fmt.Errorf("screenshot of instance %s: %w", id, err)
	}
	return nil
}

// maxPixels bounds a screen: twice 4K in both directions.
const maxPixels = 7680 * 4320

// decodePPM reads the binary PPM (P6, 8 bits a colour) that QEMU writes.
func decodePPM(r io.Reader) (image.Image, error) {
	br := bufio.NewReader(r)
	var width, height, depth int
	if _, err := fmt.Fscanf(br, "P6\n%d %d\n%d\n", &width, &height, &depth); err != nil {
		return nil, fmt.Errorf("read screen dump: %w", err)
	}
	if width <= 0 || height <= 0 || width > maxPixels || height > maxPixels/width || depth != 255 {
		return nil, fmt.Errorf("read screen dump: %d x %d pixels of depth %d", width, height, depth)
	}
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	line := make([]byte, 3*width)
	for y := range height {
		if _, err := io.ReadFull(br, line); err != nil {
			return nil, fmt.Errorf("read screen dump: %w", err)
		}
		for x := range width {
			img.SetRGBA(x, y, color.RGBA{line[3*x], line[3*x+1], line[3*x+2], 255})
		}
	}
	return img, nil
}

// SerialLog implements compute.Driver.
func (d *Driver) SerialLog(_ context.Context, id string) (io.ReadCloser, error) {
	i, err := d.instance(id)
	if err != nil {
		return nil, err
	}
	if _, err := i.load(); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(i.dir, serialLog))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("serial log of instance %s: %w", id, compute.ErrNotRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("serial log of instance %s: %w", id, err)
	}
	return f, nil
}
