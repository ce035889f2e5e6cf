"""Which pixels of its box belong to an object: the stage after the detector.

| name | class | asks |
|---|---|---|
| sam2 | `sam2.Sam2Segmenter` | a local network |
| given | `given.GivenSegmenter` | the list of items; after the detector of the same name |
"""
