"""One description of the node graph, for launch files and the supervisor."""
