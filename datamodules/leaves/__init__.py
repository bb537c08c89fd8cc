"""Dead leaves: generated pictures with the statistics of photographs."""
