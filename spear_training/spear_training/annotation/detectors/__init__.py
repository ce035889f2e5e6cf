"""What is in a picture and where: the first stage. Each gives labels and boxes.

| name | class | asks |
|---|---|---|
| gemini | `gemini.GeminiDetector` | Google's service; finds and names things by itself |
| grounding_dino | `grounding_dino.GroundingDinoDetector` | a local network, about your phrases |
| given | `given.GivenDetector` | the list of items |

Whoever finds a box, `box_rules` decides whether it is one. `unique.KeepUnique` comes after each
of them.
"""
