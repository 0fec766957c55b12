"""How the real models' teachers and students were made: recipes, tasks, and the questions they are asked."""
